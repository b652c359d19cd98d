"""safetensors, Hugging Face's file of named tensors. Tensors stay on disk until they are read.

Layout, little-endian throughout (github.com/huggingface/safetensors, README):
    u64 header length n | n bytes of JSON, padded with spaces | tensor data
    JSON: {"name": {"dtype", "shape", "data_offsets": [begin, end)}, ..., "__metadata__": {"key": "text"}}
Offsets count from the start of the data; the ranges touch each other and cover the file to its end.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2kit.atomic import replacing
from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.mapped import MAX_DIMS, MAX_ELEMENTS, mapped
from gpt2kit.json_object import parse_object
from gpt2kit.progress import Progress, Report, silent

MAX_HEADER_BYTES = 16_000_000  # that of GPT-2 XL takes 60,000; the reference library allows more
# bfloat16 has no numpy type; its bits travel as uint16.
STORED = {
    "F64": ("float64", "<f8"),
    "F32": ("float32", "<f4"),
    "F16": ("float16", "<f2"),
    "BF16": ("bfloat16", "<u2"),
    "U64": ("uint64", "<u8"),
    "U32": ("uint32", "<u4"),
    "U16": ("uint16", "<u2"),
    "I64": ("int64", "<i8"),
    "I32": ("int32", "<i4"),
    "I16": ("int16", "<i2"),
    "I8": ("int8", "<i1"),
    "U8": ("uint8", "<u1"),
    "BOOL": ("bool", "|b1"),
}
CODE_OF = {dtype: code for code, (dtype, _) in STORED.items()}


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as one does: the length of a header that is in it, and an object."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= path.stat().st_size - 8


def open_tensors(path: Path) -> dict[str, LazyTensor]:
    """Every tensor of the file, unread, after every length in the header was checked against the file's size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise TruncatedFile(
                path, 0, f"{len(start)} bytes, too short for a safetensors file; expected 8 and a header"
            )
        (header_bytes,) = struct.unpack("<Q", start)
        if header_bytes > MAX_HEADER_BYTES:
            raise FormatError(
                path,
                0,
                f"claims a header of {header_bytes} bytes; at most {MAX_HEADER_BYTES} are allowed; it starts with "
                f"{start!r}" + ("; fetch the file itself: git lfs pull" if start == b"version " else ""),
            )
        if 8 + header_bytes > size:
            raise TruncatedFile(path, 0, f"claims a header of {header_bytes} bytes, but the file has {size}")
        header = parse_object(file.read(header_bytes), path, 8)
    tensors, end = {}, 8 + header_bytes
    entries = [_Entry(path, name, fields, end) for name, fields in header.items() if name != "__metadata__"]
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != end:
            raise FormatError(
                path, entry.begin, f"{entry.name} begins here; expected at {end}, where the one before ends"
            )
        tensors[entry.name] = entry.tensor()
        end = entry.end
    if end > size:
        raise TruncatedFile(path, size, f"the file ends {end - size} bytes before its last tensor does")
    if end < size:
        raise FormatError(path, end, f"{size - end} bytes after the last tensor, expected none")
    return tensors


def write_tensors(tensors: Mapping[str, LazyTensor], path: Path, report: Report = silent) -> None:
    """Write the file in place of `path`, one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.size_bytes
        header[name] = {"dtype": CODE_OF[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for tensor, fields in zip(tensors.values(), list(header.values())[1:], strict=True):
            file.write(tensor.read_bytes())
            report(Progress(f"write {path.name}", fields["data_offsets"][1], end, "byte"))


class _Entry:
    """Where one tensor lies, in bytes from the start of the file."""

    def __init__(self, path: Path, name: str, fields: Any, data_start: int) -> None:
        self.path, self.name = path, name
        try:
            code, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
            numbers = [*shape, begin, end]
        except (TypeError, KeyError, ValueError):
            raise FormatError(
                path, 8, f"{name}: expected dtype, shape and two data_offsets, found {fields!r:.80}"
            ) from None
        if not isinstance(code, str) or code not in STORED:
            raise FormatError(path, 8, f"{name} has the type {code!r}; known are {', '.join(STORED)}")
        if not isinstance(shape, list) or len(shape) > MAX_DIMS:
            raise FormatError(
                path, 8, f"{name} has the shape {shape!r:.80}; expected a list of at most {MAX_DIMS} numbers"
            )
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise FormatError(path, 8, f"{name}: shape {shape} and offsets {begin}, {end} must be whole numbers from 0")
        self.dtype, self.storage = STORED[code]
        self.shape = tuple(shape)
        self.begin, self.end = data_start + begin, data_start + end
        if math.prod(max(count, 1) for count in shape) > MAX_ELEMENTS:
            raise FormatError(path, 8, f"{name} claims the shape {shape}; at most {MAX_ELEMENTS} elements are allowed")
        needed = math.prod(self.shape) * np.dtype(self.storage).itemsize
        if end - begin != needed:
            raise FormatError(
                path, self.begin, f"{name} {self.shape} {code} takes {needed} bytes, but has {end - begin}"
            )

    def tensor(self) -> LazyTensor:
        return LazyTensor(self.name, self.dtype, self.shape, self._load)

    def _load(self) -> np.ndarray:
        if self.begin == self.end:
            return np.empty(self.shape, self.storage)
        return mapped(self.path, self.storage, self.begin, self.shape)
