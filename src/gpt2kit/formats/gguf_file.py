"""GGUF, llama.cpp's file: settings by name, then named tensors. Tensors stay on disk until they are read.

Layout, little-endian throughout (github.com/ggml-org/ggml, docs/gguf.md), version 3, which differs from 2 in allowing
big-endian files only:
    "GGUF" | u32 version | u64 tensors | u64 settings | settings | tensor infos | padding | tensor data
    setting      string name | u32 kind | value
    tensor info  string name | u32 dimensions | u64 size of each, the fastest first | u32 type | u64 offset of its data
    string       u64 bytes | UTF-8
    array        u32 kind of its items | u64 count | items
Offsets count from the start of the data, and like it are multiples of general.alignment (32 unless told).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt2kit.atomic import replacing
from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.gguf_blocks import KINDS, BlockKind
from gpt2kit.formats.mapped import MAX_ELEMENTS, mapped
from gpt2kit.progress import Progress, Report, silent

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
MAX_HEADER_BYTES = 64_000_000  # that of GPT-2's vocabulary takes 2 MB
MAX_DIMS = 4
STRING_BYTES, SETTING_BYTES, INFO_BYTES = 8, 13, 32  # the least that one takes
# Kinds of settings: struct's letters, by number.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
U32, F32, BOOL, I32 = 4, 6, 7, 5


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies. `shape` is numpy's: the slowest dimension first."""

    path: Path
    kind: BlockKind
    shape: tuple[int, ...]
    offset: int

    def rows(self) -> np.ndarray:
        """Its bytes as they are, uint8, shape (rows, bytes a row); none are read yet."""
        row_bytes = self.kind.bytes_of(self.shape[-1])
        count = self.kind.bytes_of(int(np.prod(self.shape, dtype=np.int64))) // row_bytes
        return mapped(self.path, np.uint8, self.offset, (count, row_bytes))


@dataclass(frozen=True)
class TypedValue:
    """A setting to be written: a number of a kind, a string, or a list of one of them."""

    kind: int
    value: Any


def is_gguf(path: Path) -> bool:
    """Whether the file begins as one does."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def open_file(path: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """The settings of a file and its tensors, every place checked against the file's size. Raises FormatError."""
    size = path.stat().st_size
    header = _Header(path, mapped(path, np.uint8, 0, (size,)) if size else np.empty(0, np.uint8))
    if header.take(4) != MAGIC:
        raise FormatError(path, 0, f"begins with {bytes(header.content[:4])!r}; expected {MAGIC!r}")
    version = header.number("I")
    if version not in VERSIONS:
        big = version in (value << 24 for value in VERSIONS)
        found = "big-endian, which is not read" if big else f"of version {version}; expected 2 or 3"
        raise FormatError(path, 4, f"a GGUF file {found}; convert the model anew with llama.cpp's converter")
    tensor_count, setting_count = header.count(INFO_BYTES), header.count(SETTING_BYTES)
    settings: dict[str, Any] = {}
    for _ in range(setting_count):
        place, name = header.place, header.string()
        if name in settings:
            raise FormatError(path, place, f"the setting {name!r:.80} is there twice")
        settings[name] = header.value(header.number("I"))
    infos = [_Info(header) for _ in range(tensor_count)]
    alignment = settings.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment % 8:
        raise FormatError(path, None, f"general.alignment is {alignment!r:.80}; expected a multiple of 8")
    start = -(-header.place // alignment) * alignment
    tensors: dict[str, StoredTensor] = {}
    end = start
    for info in sorted(infos, key=lambda info: info.offset):
        begin = start + info.offset
        if info.name in tensors:
            raise FormatError(path, info.place, f"a second tensor {info.name:.80}")
        if info.offset % alignment or begin < end:
            raise FormatError(
                path,
                info.place,
                f"{info.name:.80} begins at {begin}; expected a multiple of {alignment} from {end} on",
            )
        end = begin + info.size_bytes
        if end > size:
            raise TruncatedFile(path, size, f"the file ends {end - size} bytes before the tensor {info.name:.80} does")
        tensors[info.name] = StoredTensor(path, info.kind, info.shape, begin)
    return settings, tensors


def write_file(
    settings: Mapping[str, TypedValue],
    tensors: Mapping[str, tuple[BlockKind, Sequence[int], Any]],
    path: Path,
    report: Report = silent,
) -> None:
    """Write the file in place of `path`. Each tensor is its kind, its shape, and a function that gives its rows."""
    head = [MAGIC, struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(settings))]
    for name, setting in settings.items():
        head += [_string(name), struct.pack("<I", setting.kind if not isinstance(setting.value, list) else ARRAY)]
        head.append(_array(setting) if isinstance(setting.value, list) else _scalar(setting.kind, setting.value))
    end, sizes = 0, []
    for name, (kind, shape, _) in tensors.items():
        sizes.append(kind.bytes_of(int(np.prod(shape, dtype=np.int64))))
        head.append(_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind.number, end))
        end += -(-sizes[-1] // ALIGNMENT) * ALIGNMENT
    header = b"".join(head)
    header += bytes(-len(header) % ALIGNMENT)
    with replacing(path) as file:
        file.write(header)
        for (_, _, rows), size_bytes in zip(tensors.values(), sizes, strict=True):
            content = np.ascontiguousarray(rows()).data
            assert content.nbytes == size_bytes, f"promised {size_bytes} bytes and gave {content.nbytes}"
            file.write(content)
            file.write(bytes(-file.tell() % ALIGNMENT))
            report(Progress(f"write {path.name}", file.tell(), len(header) + end, "byte"))


class _Header:
    """The beginning of a file, and how much of it has been taken."""

    def __init__(self, path: Path, content: np.ndarray) -> None:
        self.path, self.content = path, content
        self.place = 0

    def take(self, count: int) -> bytes:
        if count > len(self.content) - self.place:
            raise TruncatedFile(self.path, self.place, f"{count:,} bytes are promised here; the file ends before")
        self.place += count
        if self.place > MAX_HEADER_BYTES:
            raise FormatError(self.path, self.place, f"what precedes the tensors is over {MAX_HEADER_BYTES:,} bytes")
        return self.content[self.place - count : self.place].tobytes()

    def number(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(letter)))[0]

    def count(self, least_bytes: int) -> int:
        """How many of something follow, each of which takes some bytes."""
        place, count = self.place, int(self.number("Q"))
        if count * least_bytes > len(self.content) - self.place:
            raise TruncatedFile(self.path, place, f"{count:,} of something are promised here; the file ends before")
        return count

    def string(self) -> str:
        place = self.place
        try:
            return self.take(self.count(1)).decode()
        except UnicodeDecodeError as error:
            raise FormatError(self.path, place, f"a string that is not UTF-8: {error}") from None

    def value(self, kind: int, *, within: bool = False) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY or within:
            raise FormatError(self.path, self.place - 4, f"a value of the kind {kind}, which is not known")
        item = self.number("I")
        if item in NUMBERS:
            letter = NUMBERS[item]
            count = self.count(struct.calcsize(letter))
            return list(struct.unpack(f"<{count}{letter}", self.take(count * struct.calcsize(letter))))
        count = self.count(STRING_BYTES)
        return [self.value(item, within=True) for _ in range(count)]


class _Info:
    """What the header says of one tensor."""

    def __init__(self, header: _Header) -> None:
        self.place = header.place
        self.name = header.string()
        dims = header.number("I")
        if not 1 <= dims <= MAX_DIMS:
            raise self._error(header, f"has {dims} dimensions; expected 1 to {MAX_DIMS}")
        self.shape: tuple[int, ...] = tuple(header.number("Q") for _ in range(dims))[::-1]
        number, self.offset = header.number("I"), header.number("Q")
        elements = 1
        for length in self.shape:
            elements *= length
            if not 0 < elements <= MAX_ELEMENTS:
                raise self._error(header, f"claims the shape {self.shape}; expected 1 to {MAX_ELEMENTS} elements")
        if number not in KINDS:
            known = ", ".join(kind.name for kind in KINDS.values())
            raise self._error(
                header,
                f"is of the type {number}, which is not read; read are {known}; make one of these: "
                "llama-quantize --allow-requantize FILE NEW.gguf Q8_0",
            )
        self.kind = KINDS[number]
        if self.shape[-1] % self.kind.block:
            raise self._error(
                header, f"has rows of {self.shape[-1]}; {self.kind.name} takes {self.kind.block} at a time"
            )
        self.size_bytes = self.kind.bytes_of(elements)

    def _error(self, header: _Header, problem: str) -> FormatError:
        return FormatError(header.path, self.place, f"{self.name:.80} {problem}")


def _string(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _scalar(kind: int, value: Any) -> bytes:
    return _string(value) if kind == STRING else struct.pack(f"<{NUMBERS[kind]}", value)


def _array(setting: TypedValue) -> bytes:
    items = b"".join(_scalar(setting.kind, value) for value in setting.value)
    return struct.pack("<IQ", setting.kind, len(setting.value)) + items
