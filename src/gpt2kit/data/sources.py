"""From what a user names (files, directories, globs, "-") to the files that will be read, in order."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt2kit.data.shards import MANIFEST, is_shards
from gpt2kit.errors import DataError

Kind = Literal["text", "jsonl", "csv", "parquet", "npz", "shards"]
KINDS: dict[str, Kind] = {
    **{".txt": "text", ".md": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"},
    **{".parquet": "parquet", ".npz": "npz"},
}
COMPRESSED = (".gz", ".zst")  # behind the suffix of any kind that is text
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Source:
    """One place that texts come from."""

    path: Path
    kind: Kind
    named: bool
    """Whether the user named it, and did not leave it to a directory or a glob."""
    size_bytes: int | None
    """None where it is not known: standard input and pipes."""
    modified_ns: int

    @property
    def compression(self) -> str:
        """The suffix of its compression, or ""."""
        return self.path.suffix if self.path.suffix in COMPRESSED else ""

    @property
    def can_be_read_again(self) -> bool:
        """Not so for standard input and pipes."""
        return self.size_bytes is not None

    def __str__(self) -> str:
        return "standard input" if str(self.path) == STANDARD_INPUT else str(self.path)


def find_sources(inputs: Sequence[str | Path], leave_out: Path | None = None) -> list[Source]:
    """Every file of every input: a file, a directory (what has a known suffix, at any depth, by name), a glob, or "-".

    Directories keep what is hidden to themselves; `leave_out`, what is made of the inputs, is none of them.

    Raises:
        DataError: there is no input, or one matches nothing.
    """
    if not inputs:
        raise DataError("no text was named; give at least one file, directory or glob, or - for standard input")
    sources = [source for place in inputs for source in _sources(str(place))]
    if leave_out:
        made = leave_out.absolute()
        sources = [source for source in sources if source.named or source.path.absolute() != made]
    if sum(str(source.path) == STANDARD_INPUT for source in sources) > 1:
        raise DataError("standard input (-) was named twice; it can be read only once")
    return sources


def _sources(place: str) -> Iterator[Source]:
    path = Path(place)
    if place == STANDARD_INPUT:
        yield Source(path, "text", True, None, 0)
    elif is_shards(path):
        yield _source(path, True)
    elif path.is_dir():
        yield from (_source(found, False) for found in _inside(path))
    elif path.exists():
        yield _source(path, True)
    else:
        found = sorted(Path(name) for name in glob.glob(place, recursive=True))
        found = [match for match in found if match.is_file() or is_shards(match)]
        if not found:
            raise DataError(f"{place}: no such file or directory, and no file matches it as a pattern")
        yield from (_source(match, False) for match in found)


def _inside(directory: Path) -> list[Path]:
    """Files of a known kind and directories of shards; what lies in those belongs to them."""
    visible = [path for path in directory.rglob("*") if not _is_hidden(path.relative_to(directory))]
    shards = {path.parent for path in visible if path.name == MANIFEST and is_shards(path.parent)}
    files = (path for path in visible if _kind_of(path) and path.is_file())
    found = sorted([*shards, *(file for file in files if not shards.intersection(file.parents))])
    if not found:
        known = ", ".join(KINDS)
        raise DataError(f"{directory}: no text in this directory; looked for {known}, and .gz or .zst of them")
    return found


def _source(path: Path, named: bool) -> Source:
    kind: Kind = "shards" if path.is_dir() else _kind_of(path) or "text"
    try:
        status = (path / MANIFEST if kind == "shards" else path).stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    size = sum(file.stat().st_size for file in path.glob("*.bin")) if kind == "shards" else status.st_size
    return Source(path, kind, named, size if path.is_dir() or path.is_file() else None, status.st_mtime_ns)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kind_of(path: Path) -> Kind | None:
    if path.suffix not in COMPRESSED:
        return KINDS.get(path.suffix)
    kind = KINDS.get(path.with_suffix("").suffix)
    return None if kind in ("parquet", "npz") else kind
