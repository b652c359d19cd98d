"""Option types that tyro does not have, and what words must be."""

from __future__ import annotations

import re
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from tyro import _resolver
from tyro.conf import FlagConversionOff
from tyro.constructors import PrimitiveConstructorSpec

from gpt2kit.errors import ConfigError

# tyro holds every default against its type, and loads typeguard for `int | None` and `tuple[str, ...]`: a tenth of the
# time from the command to the first token. Where a later tyro asks otherwise, this is asked by nobody.
_slow_is_instance = getattr(_resolver, "is_instance", isinstance)


def _is_instance(kind: Any, value: Any) -> bool:
    if get_origin(kind) is UnionType:
        return any(_is_instance(part, value) for part in get_args(kind))
    if value in ((), {}):  # holds nothing of another kind
        return isinstance(value, get_origin(kind) or kind)
    return bool(_slow_is_instance(kind, value))


vars(_resolver)["is_instance"] = _is_instance

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def _from_words(words: list[str]) -> bool:
    if words[0].lower() not in ("true", "false"):
        raise ValueError(f"expected true or false, found {words[0]!r}")
    return words[0].lower() == "true"


TrueOrFalse = FlagConversionOff[
    Annotated[
        bool,
        PrimitiveConstructorSpec(
            nargs=1,
            metavar="{true,false}",
            instance_from_str=_from_words,
            is_instance=lambda value: isinstance(value, bool),
            str_from_instance=lambda value: [str(value).lower()],
        ),
    ]
]
"""A boolean that is written out, `--include_prefix true`, as the old tools had it."""


def optional_text(metavar: str) -> PrimitiveConstructorSpec[str | None]:
    """For `Annotated[str | None, ...]`: on the command line any word is text, "None" too."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: value is None or isinstance(value, str),
        str_from_instance=lambda value: [str(value)],
    )


def require_utf8(text: str, name: str) -> None:
    """Raise ConfigError unless `text`, which the command line gave to `name`, is whole characters."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} is not UTF-8 text from character {error.start + 1} on; set the terminal to UTF-8"
        ) from None


def size_in_bytes(text: str) -> int:
    """What "2GB", "500 MB" or "1.5GiB" means, in bytes. Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text, re.IGNORECASE | re.ASCII)
    if not match or match[2].upper() not in UNITS:
        raise ConfigError(f"no size: {text!r:.40}; expected a number with KB, MB, GB, KiB, MiB or GiB, such as 500MB")
    return int(float(match[1]) * UNITS[match[2].upper()])
