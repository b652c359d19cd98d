"""What is asked for: a name, turned into a directory and addresses. All of it is checked before anything is fetched.

OpenAI's store       BASE/models/NAME/FILE, NAME being the new one (124M, also where 117M is asked for)
the Hugging Face hub BASE/OWNER/NAME/resolve/main/FILE; any server of static files with these paths will do
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote, urlsplit

from gpt2kit.config.limits import require
from gpt2kit.errors import ConfigError, ModelNotFound
from gpt2kit.hub.catalogue import KNOWN_MODELS, MODELS, KnownFile, KnownModel, find, suggestion
from gpt2kit.hub.manifest import holds_files_from

Source = Literal["openai", "huggingface"]
BASES: dict[Source, str] = {
    "openai": "https://openaipublic.blob.core.windows.net/gpt-2",
    "huggingface": "https://huggingface.co",
}
REPOSITORY = re.compile(r"hf:((?:[A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*)", re.ASCII)


@dataclass(frozen=True)
class Order:
    """One model to fetch: from where, and where to."""

    name: str
    """As it was asked for."""
    folder: Path
    source: Source
    base: str
    """The address of the source."""
    stored_as: str
    """The name it has there."""
    files: tuple[KnownFile, ...] = ()
    """Of OpenAI's store: the hub's files are found by asking."""
    token: str | None = field(default=None, repr=False)

    def url(self, file: str) -> str:
        """Where a file is fetched."""
        if self.source == "openai":
            return f"{self.base}/models/{quote(self.stored_as)}/{quote(file)}"
        return f"{self.base}/{quote(self.stored_as)}/resolve/main/{quote(file)}"


def place_order(
    name: str,
    *,
    source: Source | None = None,
    endpoint: str | None = None,
    models: Path = MODELS,
    catalogue: Sequence[KnownModel] = KNOWN_MODELS,
) -> Order:
    """Work out what a name asks for. Nothing is fetched.

    Raises:
        ModelNotFound: the name is neither known nor that of a repository ("hf:owner/name").
        ConfigError: the source has no such model, its address is none, or the directory has files of another source.
    """
    require(source is None or source in get_args(Source), f"source must be openai or huggingface, got {source!r}")
    known = find(name, catalogue)
    stored_as = known.hub_id if known else _repository(name, catalogue)
    folder = models / name.removeprefix("hf:")
    there = holds_files_from(folder)
    if source and there and source != there:
        raise ConfigError(
            f"{folder}: holds files from {there}, and those from {source} would mix with them; "
            "move it away, or name another --models-dir"
        )
    if source == "openai" and not (known and known.files):
        raise ConfigError(
            f"{name} is not in OpenAI's store, only on the hub: gpt2 download {name} --source huggingface"
        )
    released = bool(known and known.files and name in (known.name, *known.aliases))
    source = source or there or ("openai" if released else "huggingface")
    if source == "openai" and known:
        return Order(name, folder, source, _base(source, endpoint), known.name, known.files)
    return Order(name, folder, source, _base(source, endpoint), stored_as, token=_token())


def _repository(name: str, catalogue: Sequence[KnownModel]) -> str:
    if match := REPOSITORY.fullmatch(name):
        return match[1]
    if near := suggestion(name, catalogue):
        hint = f"did you mean {near!r}?"
    elif REPOSITORY.fullmatch(f"hf:{name}") and "/" in name:
        hint = f"for a repository of the hub write hf:{name}"
    else:
        known = dict.fromkeys(name for model in catalogue for name in model.names()[:2])
        hint = f"known are {', '.join(known)}; any repository of the hub is hf:owner/name"
    raise ModelNotFound(f"no model is called {name!r}: {hint}")


def _base(source: Source, endpoint: str | None) -> str:
    from_environment = os.environ.get("HF_ENDPOINT") if source == "huggingface" else None
    base = (endpoint or from_environment or BASES[source]).strip().rstrip("/")
    if not _is_address(base):
        origin = "--endpoint" if endpoint else "HF_ENDPOINT"
        raise ConfigError(
            f"{origin} is not an address to fetch from; expected the like of https://huggingface.co, without a user, a "
            "password or a query (a token goes into HF_TOKEN)"
        )
    return base


def _is_address(base: str) -> bool:
    try:
        parts = urlsplit(base)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(whole) and not (parts.username or parts.password or parts.query or parts.fragment)


def _token() -> str | None:
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := os.environ.get(variable, "").strip():
            require(
                token.isascii() and token.isprintable() and " " not in token,
                f"{variable} is not a token: copy it again",
            )
            return token
    return None
