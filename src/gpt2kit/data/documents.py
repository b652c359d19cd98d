"""Texts as they lie on disk: files, directories and globs of UTF-8 text."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.errors import DataError

SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class Document:
    """One text; `<|endoftext|>` will stand behind it."""

    text: str
    source: str


def read_documents(inputs: Sequence[str | Path]) -> Iterator[Document]:
    """Every file of every input, by name: a file, a directory (its .txt and .md files, at any depth) or a glob.

    Raises:
        DataError: there is no input, one matches nothing, or a file is empty, binary, or not UTF-8 (with the offset).
    """
    if not inputs:
        raise DataError("no text was named; give at least one file, directory or glob")
    for place in inputs:
        for path in _files(str(place)):
            yield Document(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The text of one file, line ends as they are. Raises DataError as `read_documents` does."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    text = decode_text(content, str(path))
    if not text:
        raise DataError(f"{path}: the file is empty")
    return text


def decode_text(content: bytes, source: str) -> str:
    """UTF-8 as text, without a byte order mark. Raises DataError, which names `source` and the offset."""
    if b"\0" in content[:65536]:
        raise DataError(f"{source}: looks binary (a zero byte at {content.index(0)}); expected UTF-8 text")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: not UTF-8 at byte {error.start} ({content[error.start : error.start + 1].hex()}); "
            "save it as UTF-8 in an editor, or convert it with iconv"
        ) from None


def _files(place: str) -> list[Path]:
    path = Path(place)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not found:
            raise DataError(f"{path}: no {' or '.join(SUFFIXES)} file in this directory")
        return found
    if path.exists():
        return [path]
    if found := sorted(Path(name) for name in glob.glob(place, recursive=True) if Path(name).is_file()):
        return found
    raise DataError(f"{place}: no such file or directory, and no file matches it as a pattern")
