"""A TensorBundle, TensorFlow's named tensors: prefix.index and prefix.data-SSSSS-of-NNNNN, read tensor by tensor.

data    the values of tensor after tensor, little-endian, without a header; offsets count from the shard's beginning
index   a sorted table of protocol buffers (tensorflow/core/protobuf/tensor_bundle.proto); zeros are left out
    ""    header: 1 count of shards | 2 byte order (1 is big) | 3 version {1 producer | 2 oldest reader that may}
    name  entry:  1 type | 2 shape {2 dimension {1 size}, 3 unknown rank} | 3 shard | 4 offset | 5 size
                  | 6 masked CRC32C of the values, 4 bytes | 7 slices of a partitioned variable
    keys from byte 0 on hold the slices
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from gpt2kit.atomic import replace_bytes, replacing
from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.mapped import MAX_DIMS, MAX_ELEMENTS, mapped
from gpt2kit.formats.protobuf import Message, bytes_field, fixed32_field, number_field, read_varint
from gpt2kit.formats.sorted_table import masked_crc32c, read_table, table_bytes
from gpt2kit.progress import Progress, Report

FLOAT32 = 1
# tensorflow/core/framework/types.proto. bfloat16 has no numpy type; its bits travel as uint16.
STORED = {
    FLOAT32: ("float32", "<f4"),
    2: ("float64", "<f8"),
    3: ("int32", "<i4"),
    4: ("uint8", "|u1"),
    5: ("int16", "<i2"),
    6: ("int8", "|i1"),
    8: ("complex64", "<c8"),
    9: ("int64", "<i8"),
    10: ("bool", "|b1"),
    14: ("bfloat16", "<u2"),
    17: ("uint16", "<u2"),
    18: ("complex128", "<c16"),
    19: ("float16", "<f2"),
    22: ("uint32", "<u4"),
    23: ("uint64", "<u8"),
}
STRING = 7
MAX_STRING_BYTES = 4 * 2**20
FORMAT_VERSION = 1  # kTensorBundleVersion
SLICES = b"\0"  # how their keys begin


def index_path(prefix: Path) -> Path:
    """Where the index of the bundle `prefix` is."""
    return prefix.with_name(f"{prefix.name}.index")


def shard_path(prefix: Path, shard: int, shards: int) -> Path:
    """Where one of the data files of the bundle `prefix` is."""
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def open_tensors(prefix: Path) -> dict[str, LazyTensor]:
    """Every tensor of the bundle, unread; its place was checked against the files, its checksum is when it is read.

    What numpy cannot hold is listed with a dtype that is no numpy name ("string", "float32 in slices"), and refused
    with a FormatError when it is read.
    """
    entries = _read_entries(prefix)
    return {entry.name: LazyTensor(entry.name, entry.dtype, entry.shape, entry.load) for entry in entries}


def read_string(prefix: Path, name: str) -> bytes:
    """The one string that the tensor `name` of the bundle holds, after its checksum was found right."""
    entry = next((entry for entry in _read_entries(prefix) if entry.name == name), None)
    if entry is None or entry.dtype != "string" or entry.shape:
        raise FormatError(index_path(prefix), None, f"{name} is missing, or not one string")
    return entry.string()


def write_tensors(tensors: Mapping[str, LazyTensor], prefix: Path, report: Report) -> None:
    """Write the bundle in place of `prefix`, as float32, one tensor in memory at a time; the index comes last."""
    total = sum(4 * math.prod(tensor.shape) for tensor in tensors.values())
    version = bytes_field(3, number_field(1, FORMAT_VERSION))
    pairs, offset = [(b"", number_field(1, 1) + version)], 0
    with replacing(shard_path(prefix, 0, 1)) as file:
        # TensorFlow, too, writes in the order of the names' bytes.
        for key, tensor in sorted((name.encode(), tensor) for name, tensor in tensors.items()):
            values = np.frombuffer(tensor.stored_as("float32").read_bytes(), np.uint8)
            values.flags.writeable = False  # as the checksum wants it
            file.write(values.data)
            pairs.append((key, _entry_bytes(tensor.shape, offset, values.size, masked_crc32c(values))))
            offset += values.size
            report(Progress("write", offset, total, "byte"))
    replace_bytes(index_path(prefix), table_bytes(pairs))


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where one tensor lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    storage: str | None  # None where numpy cannot hold it
    path: Path
    offset: int
    size: int
    crc: int

    def load(self) -> np.ndarray:
        if self.storage is None:
            raise FormatError(self.path, self.offset, f"{self.name} is stored as {self.dtype}, which cannot be read")
        stored = self._mapped()
        if (found := masked_crc32c(stored)) != self.crc:
            raise FormatError(
                self.path,
                self.offset,
                f"{self.name}: the checksum of the values is {found:08x}, expected {self.crc:08x}; "
                "the file is damaged, copy it again",
            )
        values = stored.view(self.storage).reshape(self.shape)
        return values if values.flags.aligned else values.copy()

    def string(self) -> bytes:
        """The string. It lies as varint length | u32 checksum of the length | bytes; summed, the length is a u32."""
        if self.size > MAX_STRING_BYTES:
            raise FormatError(
                self.path, self.offset, f"{self.name} takes {self.size:,} bytes; at most {MAX_STRING_BYTES:,}"
            )
        stored = self._mapped().tobytes()
        try:
            length, at = read_varint(stored, 0)
        except ValueError as error:
            raise FormatError(self.path, self.offset, f"{self.name}: {error}") from None
        string = stored[at + 4 :]
        if length != len(string) or masked_crc32c(length.to_bytes(4, "little") + stored[at:]) != self.crc:
            raise FormatError(
                self.path, self.offset, f"{self.name}: its length or its checksum is wrong; copy it again"
            )
        return string

    def _mapped(self) -> np.ndarray:
        if self.size == 0:
            return np.frombuffer(b"", np.uint8)
        return mapped(self.path, np.uint8, self.offset, (self.size,))


def _read_entries(prefix: Path) -> list[_Entry]:
    index = index_path(prefix)
    pairs = read_table(index)
    shards = _read_header(index, next(pairs, None))
    entries = [_read_entry(prefix, shards, key, content) for key, content in pairs if not key.startswith(SLICES)]
    _check_places(index, entries)
    return entries


def _read_header(index: Path, first: tuple[bytes, bytes] | None) -> int:
    """The count of shards."""
    if first is None or first[0] != b"":
        raise FormatError(index, None, "has no header; expected one under the empty key")
    try:
        header = Message(first[1])
        shards, byte_order = header.number(1), header.number(2)
        (oldest_reader,) = [Message(version).number(2) for version in header.parts(3)[-1:]] or [0]
    except ValueError as error:
        raise FormatError(index, None, f"the header is damaged: {error}") from None
    if byte_order != 0:
        raise FormatError(index, None, "written on a big-endian machine, which cannot be read; save it on another")
    if oldest_reader > FORMAT_VERSION:
        raise FormatError(index, None, f"asks for version {oldest_reader}; this reader knows {FORMAT_VERSION}")
    return shards


def _read_entry(prefix: Path, shards: int, key: bytes, content: bytes) -> _Entry:
    index = index_path(prefix)
    try:
        name, entry = key.decode(), Message(content)
        code, shard, crc = entry.number(1), entry.signed(3), entry.number(6)
        offset, size = entry.signed(4), entry.signed(5)
        shape = _read_shape(entry.parts(2)[-1:])
        sliced = bool(entry.parts(7))
    except ValueError as error:
        raise FormatError(index, None, f"the entry {key!r:.80} is damaged: {error}") from None
    if not 0 <= shard < shards:
        raise FormatError(index, None, f"{name} lies in shard {shard}; the bundle has {shards}")
    if offset < 0 or size < 0:
        raise FormatError(index, None, f"{name} claims {size} bytes at {offset}; expected numbers from 0")
    dtype, storage = STORED.get(code, ("string" if code == STRING else f"TensorFlow's type {code}", None))
    if sliced:
        # The bundle has only the slices' values, under keys of their own.
        dtype, storage, size = f"{dtype} in slices", None, 0
    if storage and size != (needed := math.prod(shape) * np.dtype(storage).itemsize):
        raise FormatError(index, None, f"{name} {shape} {dtype} takes {needed} bytes, but has {size}")
    return _Entry(name, dtype, shape, storage, shard_path(prefix, shard, shards), offset, size, crc)


def _read_shape(stored: list[bytes]) -> tuple[int, ...]:
    if not stored:
        return ()
    message = Message(stored[0])
    shape = tuple(Message(dimension).signed(1) for dimension in message.parts(2))
    if message.number(3) or len(shape) > MAX_DIMS:
        raise ValueError(f"it claims {len(shape) or 'unknown'} dimensions; at most {MAX_DIMS} are allowed")
    if min(shape, default=0) < 0 or math.prod(max(count, 1) for count in shape) > MAX_ELEMENTS:
        raise ValueError(f"it claims the shape {shape}; expected numbers from 0, at most {MAX_ELEMENTS} elements")
    return shape


def _check_places(index: Path, entries: list[_Entry]) -> None:
    """Every tensor lies in its shard, and in no other's bytes."""
    filled = sorted((entry for entry in entries if entry.size), key=lambda entry: (entry.path, entry.offset))
    for before, after in pairwise(filled):
        if before.path == after.path and after.offset < before.offset + before.size:
            raise FormatError(index, None, f"{before.name} and {after.name} share bytes of {after.path.name}")
    for path, last in {entry.path: entry for entry in filled}.items():
        if not path.is_file():
            raise FormatError(path, None, f"missing; {index.name} says that it holds {last.name} and others")
        end, size = last.offset + last.size, path.stat().st_size
        if end > size:
            raise TruncatedFile(path, size, f"the file ends {end - size} bytes before {last.name} does")


def _entry_bytes(shape: tuple[int, ...], offset: int, size: int, crc: int) -> bytes:
    dimensions = b"".join(bytes_field(2, number_field(1, count)) for count in shape)
    place = number_field(4, offset) + number_field(5, size)
    return number_field(1, FLOAT32) + bytes_field(2, dimensions) + place + fixed32_field(6, crc)
