"""What was downloaded into a directory, and from where: .download.json, written when all of it is there and verified.

    {"name", "source", "files": {file name: {"url", "size", "sha256", "validator"}}}
"url" is null for a file that was there before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt2kit.atomic import replace_bytes
from gpt2kit.errors import FormatError
from gpt2kit.hub.promise import Promise
from gpt2kit.json_object import read_object

MANIFEST, LOCK = ".download.json", ".download.lock"


@dataclass(frozen=True)
class Entry:
    """One file of a directory: what it is and where it came from."""

    url: str | None
    promise: Promise


def write_manifest(folder: Path, name: str, source: str, entries: Mapping[str, Entry]) -> None:
    """Write down that `folder` is complete."""
    files = {
        file: {
            "url": entry.url,
            "size": entry.promise.size,
            "sha256": entry.promise.sha256,
            "validator": entry.promise.validator,
        }
        for file, entry in entries.items()
    }
    content = {"name": name, "source": source, "files": files}
    replace_bytes(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())


def read_entries(folder: Path) -> dict[str, Entry]:
    """What was written down of the files in `folder`; nothing where nothing was, or where it cannot be read."""
    files = _read(folder).get("files")
    if not isinstance(files, dict):
        return {}
    return {
        name: Entry(url if isinstance(url := stored.get("url"), str) else None, Promise.restored(stored))
        for name, stored in files.items()
        if isinstance(stored, dict)
    }


def is_complete(folder: Path) -> bool:
    """Whether every file that was downloaded is there in its size."""
    entries = read_entries(folder)
    return bool(entries) and all(is_in_place(folder / name, entry.promise) for name, entry in entries.items())


def is_in_place(path: Path, promise: Promise) -> bool:
    """Whether a file of the promised size is there."""
    return path.is_file() and path.stat().st_size == promise.size


def is_unfinished(folder: Path) -> bool:
    """Whether a download into `folder` began and has not come to its end."""
    return (folder / LOCK).exists() and not (folder / MANIFEST).exists()


def holds_files_from(folder: Path) -> Literal["openai", "huggingface"] | None:
    """The source whose files are in `folder`, by what was written down, else by what they are called."""
    source = _read(folder).get("source")
    if source in ("openai", "huggingface"):
        return "openai" if source == "openai" else "huggingface"
    if any((folder / name).exists() for name in ("hparams.json", "model.ckpt.index")):
        return "openai"
    return "huggingface" if (folder / "config.json").exists() else None


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        return read_object(path)
    except (FileNotFoundError, NotADirectoryError, FormatError):
        return {}
