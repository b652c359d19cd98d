"""Weights as the native engine reads them, packed once and kept in a file beside the model.

The file, `.packed-<precision>` in the model's directory: a magic number, the length of a header, the header (JSON: what
it was made from, and where each array lies), then the arrays, each on a page of its own, to be mapped into memory.
Shape letters: O outputs of a matrix   I its inputs
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gpt2kit import _native
from gpt2kit.atomic import replacing
from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import Precision

PANEL = 64  # vectors are filled up to a multiple of a panel's rows
MAGIC = b"gpt2kit packed 1"
PAGE = 4096
# Smaller models are packed as fast as a file is read.
WORTH_KEEPING = 32_000_000

Weights = dict[str, np.ndarray]
"""By name: packed matrices (uint8), and vectors filled up with zeros (float32)."""


def packed_weights(checkpoint: Checkpoint, precision: Precision, threads: int) -> Weights:
    """The weights of a model: from the file beside it, or packed now, and kept where that is allowed."""
    directory = Path(checkpoint.origin)
    if not directory.is_dir() or sum(tensor.size_bytes for tensor in checkpoint.tensors.values()) < WORTH_KEEPING:
        return dict(_pack(checkpoint, precision, threads))
    file = directory / f".packed-{precision}"
    stamp = _stamp(directory)
    header, kept = _open(file)
    if kept and header["stamp"] == stamp:
        return kept
    content = _content(checkpoint)
    same = kept and header["content"] == content
    weights = kept if same else dict(_pack(checkpoint, precision, threads))
    with suppress(OSError):  # a directory that is not ours to write in, a full disk: packed again next time
        _write(file, {"stamp": stamp, "content": content}, weights)
    return weights


def _pack(checkpoint: Checkpoint, precision: Precision, threads: int) -> Iterator[tuple[str, np.ndarray]]:
    for name, tensor in checkpoint.tensors.items():
        values = np.asarray(tensor.read_float32())
        stem = name.removesuffix(".weight")
        if stem in ("wte", "lm_head"):  # [outputs, inputs], and without bias
            yield name, _matrix(values, precision, threads)
            yield f"{stem}.bias", np.zeros(_filled_up(len(values)), np.float32)
        elif stem == "wpe":
            yield name, np.ascontiguousarray(values).reshape(-1)
        elif values.ndim == 2:
            yield name, _matrix(values.T, precision, threads)
        else:
            yield name, np.pad(values, (0, _filled_up(values.size) - values.size))


def _matrix(values_OI: np.ndarray, precision: Precision, threads: int) -> np.ndarray:
    packed = _native.huge_pages(_native.packed_bytes(precision, *values_OI.shape))
    _native.pack(precision, values_OI, packed, threads)
    return packed


def _filled_up(size: int) -> int:
    return -(-size // PANEL) * PANEL


# --- the file ---


def _stamp(directory: Path) -> list[list[Any]]:
    """What tells, nearly always and at once, whether a model has changed: names, sizes and times of its files."""
    with os.scandir(directory) as entries:
        files = [(entry.name, entry.stat()) for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    return sorted([name, found.st_size, found.st_mtime_ns] for name, found in files)


def _content(checkpoint: Checkpoint) -> str:
    """What tells it for certain."""
    digest = hashlib.sha256(repr((checkpoint.config, [*checkpoint.tensors])).encode())
    for tensor in checkpoint.tensors.values():
        digest.update(tensor.read_bytes())
    return digest.hexdigest()


def _write(file: Path, made_from: Mapping[str, Any], weights: Weights) -> None:
    places, end = {}, 0
    for name, array in weights.items():
        places[name] = [str(array.dtype), end, array.nbytes]
        end += -(-array.nbytes // PAGE) * PAGE
    header = json.dumps({**made_from, "arrays": places, "bytes": end}).encode()
    with replacing(file) as out:
        out.write(MAGIC + struct.pack("<Q", len(header)) + header)
        for array in weights.values():
            out.write(bytes(-out.tell() % PAGE))
            out.write(array.data)
        out.write(bytes(-out.tell() % PAGE))


def _open(file: Path) -> tuple[dict[str, Any], Weights]:
    """The header and the arrays of a whole file, mapped; nothing of one that is not there, or torn."""
    try:
        with file.open("rb") as opened:
            memory = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        begin = len(MAGIC) + 8
        (length,) = struct.unpack("<Q", memory[len(MAGIC) : begin])
        if memory[: len(MAGIC)] != MAGIC or length > len(memory):
            return {}, {}
        header = json.loads(memory[begin : begin + length])
        first = -(-(begin + length) // PAGE) * PAGE
        if len(memory) != first + header["bytes"]:
            return {}, {}
        weights = {
            name: np.frombuffer(memory, dtype, size // np.dtype(dtype).itemsize, first + place)
            for name, (dtype, place, size) in header["arrays"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return {}, {}
    return header, weights
