"""Shards: encoded documents on disk, mapped into memory, so a corpus may be larger than memory.

A directory, little-endian throughout:
    manifest.json   format, version, dtype ("uint16" or "uint32"), vocab_size, end_id, tokenizer_sha256, tokens,
                    documents, text_bytes, shards (a list of tokens a shard), recipe (what it was made of, and how)
    00000.bin ...   ids, one after the other; a document may go on in the next shard
    ends.bin        int64: the position after each document, counted over all shards
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.json_object import parse_object

FORMAT, VERSION = "gpt2kit shards", 1
MANIFEST, ENDS = "manifest.json", "ends.bin"
SHARD_TOKENS = 2**27
LARGEST_MANIFEST_BYTES = 2**28


@dataclass(frozen=True)
class Shards:
    """An open corpus: ids that stay on disk until they are taken."""

    directory: Path
    parts: tuple[np.ndarray, ...]
    """Mapped files of uint16 or uint32, none of them empty."""
    ends: np.ndarray
    """int64: the position after each document."""
    total: int
    vocab_size: int
    end_id: int
    tokenizer_sha256: str
    text_bytes: int
    """UTF-8 bytes of all texts; what came as ids already counts nothing."""
    recipe: Mapping[str, Any]
    """Inputs, reading options and tokenizer, as `encode_to_shards` noted them."""

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The ids at `positions` (any shape, from 0 below `total`), int64. Raises FormatError for an impossible id."""
        if not positions.size:
            return np.empty(positions.shape, np.int64)
        first, last = self._part_of(positions.min()), self._part_of(positions.max())
        ids = np.empty(positions.shape, np.int64)
        if first == last:
            ids[...] = self.parts[first][positions - self._starts[first]]
        else:
            part_of = self._part_of(positions)
            for number in range(first, last + 1):
                here = part_of == number
                ids[here] = self.parts[number][positions[here] - self._starts[number]]
        if (highest := ids.max()) >= self.vocab_size:
            problem = f"holds the id {highest}; the vocabulary has only {self.vocab_size}; encode the text again"
            raise FormatError(self.directory, None, problem)
        return ids

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(part.size for part in self.parts)])[:-1]

    def _part_of(self, positions: np.ndarray) -> Any:
        return np.searchsorted(self._starts, positions, side="right") - 1


def is_shards(path: Path) -> bool:
    """Whether `path` is a directory that claims to hold shards."""
    try:
        with (path / MANIFEST).open("rb") as file:
            return FORMAT.encode() in file.read(4096)
    except OSError:
        return False


def open_shards(directory: Path) -> Shards:
    """Open a corpus. Reads the manifest and the ends of documents; ids are mapped.

    Raises:
        FormatError: the files are not what the manifest promises.
    """
    place = directory / MANIFEST
    manifest = parse_object(_read(place), place)
    if (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
        found = f"{manifest.get('format')!r:.80} version {manifest.get('version')!r:.80}"
        raise FormatError(place, None, f"found {found}, expected {FORMAT!r} version {VERSION}")
    numbers = {name: _number(manifest, name, place) for name in ("tokens", "documents", "text_bytes", "end_id")}
    vocab_size = _number(manifest, "vocab_size", place, lowest=numbers["end_id"] + 1)
    sizes = manifest.get("shards")
    if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
        raise FormatError(place, None, f"shards is {sizes!r:.80}; expected a list of tokens a shard")
    if sum(sizes) != numbers["tokens"]:
        raise FormatError(place, None, f"{numbers['tokens']} tokens, but the shards hold {sum(sizes)}")
    if manifest.get("dtype") != (dtype := dtype_for(vocab_size)).name:
        raise FormatError(place, None, f"dtype is {manifest.get('dtype')!r:.80}, expected {dtype.name!r}")
    sha256, recipe = manifest.get("tokenizer_sha256"), manifest.get("recipe")
    if not isinstance(sha256, str) or not isinstance(recipe, dict):
        raise FormatError(place, None, "tokenizer_sha256 or recipe is missing")
    parts = tuple(_mapped(directory / shard_name(number), dtype, size) for number, size in enumerate(sizes))
    ends = _mapped(directory / ENDS, np.dtype("<i8"), numbers["documents"])
    first, last = (int(ends[0]), int(ends[-1])) if ends.size else (0, 0)
    if first < 0 or last != numbers["tokens"] or (ends[1:] < ends[:-1]).any():
        raise FormatError(directory / ENDS, None, f"the ends of documents do not rise to {numbers['tokens']}")
    return Shards(
        *(directory, parts, ends, numbers["tokens"], vocab_size, numbers["end_id"], sha256, numbers["text_bytes"]),
        recipe,
    )


def manifest_bytes(
    *,
    tokens: int,
    documents: int,
    text_bytes: int,
    vocab_size: int,
    end_id: int,
    tokenizer_sha256: str,
    shards: Sequence[int],
    recipe: Mapping[str, Any],
) -> bytes:
    """The content of manifest.json; `shards` counts the tokens in each."""
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": dtype_for(vocab_size).name,
        "tokens": tokens,
        "documents": documents,
        "text_bytes": text_bytes,
        "vocab_size": vocab_size,
        "end_id": end_id,
        "tokenizer_sha256": tokenizer_sha256,
        "shards": list(shards),
        "recipe": recipe,
    }
    return json.dumps(manifest, indent=1).encode()


def shard_name(number: int) -> str:
    """The file of shard `number`, counted from 0."""
    return f"{number:05}.bin"


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """The narrowest type that holds every id."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_MANIFEST_BYTES:
            raise FormatError(path, None, f"larger than {LARGEST_MANIFEST_BYTES:,} bytes; this is no manifest")
        return path.read_bytes()
    except OSError as error:
        raise FormatError(path, None, f"cannot be read: {error.strerror or error}") from None


def _number(manifest: Mapping[str, Any], name: str, place: Path, lowest: int = 0) -> int:
    number = manifest.get(name)
    if type(number) is not int or not lowest <= number < 2**62:
        raise FormatError(place, None, f"{name} is {number!r:.80}, expected a whole number from {lowest}")
    return number


def _mapped(path: Path, dtype: np.dtype[Any], count: int) -> np.ndarray:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise FormatError(path, None, f"cannot be read: {error.strerror or error}") from None
    if (expected := count * dtype.itemsize) != found:
        kind = TruncatedFile if found < expected else FormatError
        raise kind(path, None, f"found {found:,} bytes, the manifest promises {expected:,}")
    return np.memmap(path, dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)
