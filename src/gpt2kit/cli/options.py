"""Option types that tyro does not have."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import FlagConversionOff
from tyro.constructors import PrimitiveConstructorSpec


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
