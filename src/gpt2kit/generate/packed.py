"""What a model is opened from at once, made once and kept in files beside it: its weights as the native engine reads
them, its tokenizer's words as they are looked up.

A file, `.packed-<precision>` or `.packed-tokenizer` in the model's directory, `.NAME.packed-...` beside a model of one
file: a magic number, the length of a header, the header (JSON: what it was made from, and where each array lies), then
the arrays, each on a page of its own, to be mapped into memory.
Shape letters: O outputs of a matrix   I its inputs
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gpt2kit.atomic import replacing
from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import Precision
from gpt2kit.errors import ConfigError
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.flat_vocabulary import FlatVocabulary
from gpt2kit.tokenizer.open import holds_vocabulary, open_tokenizer
from gpt2kit.tokenizer.protocol import Tokenizer
from gpt2kit.tokenizer.vocabulary import read_vocabulary

PANEL = 64  # vectors are filled up to a multiple of a panel's rows
MAGIC = b"gpt2kit packed 2"
PAGE = 4096
# Smaller models are packed as fast as a file is read.
WORTH_KEEPING = 32_000_000
LARGEST = 1e6  # weight that whole numbers times a scale may stand for: of larger ones halves hold no scale

SENSITIVE = {"wte.weight", "lm_head.weight", "h.0.attn.c_attn.weight"}

Arrays = dict[str, np.ndarray]


def packed_weights(checkpoint: Checkpoint, precision: Precision, threads: int) -> Arrays:
    """The weights of a model: from the file beside it, or packed now, and kept where that is allowed.

    Matrices are uint8 as `_native.pack` makes them; vectors are float32, filled up with zeros.
    """
    file = _place(checkpoint, precision)
    if file is None:
        return dict(_pack(checkpoint, precision, threads))
    stamp = _stamp(checkpoint)
    header, kept = _open(file)
    if kept and header["stamp"] == stamp:
        return kept
    content = _content(checkpoint)
    same = kept and header["content"] == content
    weights = kept if same else dict(_pack(checkpoint, precision, threads))
    _keep(file, {"stamp": stamp, "content": content}, weights)
    return weights


def packed_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer of a model: from the file beside it, or read now, and kept as the weights are."""
    file, files = _place(checkpoint, "tokenizer"), checkpoint.tokenizer_files
    if file is None or not holds_vocabulary(files):  # others are read as fast as they could be kept
        return open_tokenizer(files, checkpoint.origin)
    content = hashlib.sha256()
    for name in sorted(files):
        content.update(f"{name} {len(files[name])} ".encode() + files[name])
    header, arrays = _open(file)
    if arrays and header["content"] == content.hexdigest():
        return ByteLevelBPE(FlatVocabulary(**{**header["vocabulary"], **arrays}))
    flat = vars(FlatVocabulary.of(read_vocabulary(files, checkpoint.origin)))
    arrays = {name: part for name, part in flat.items() if isinstance(part, np.ndarray)}
    others = {name: part for name, part in flat.items() if name not in arrays}
    _keep(file, {"content": content.hexdigest(), "vocabulary": others}, arrays)
    return ByteLevelBPE(FlatVocabulary(**flat))


def format_of(name: str, precision: Precision) -> str:
    """How a matrix is packed. In int4 a few have 6 bits: 4 there would cost more than in all others together."""
    return "int6" if precision == "int4" and name in SENSITIVE else precision


def packed_bytes(checkpoint: Checkpoint, precision: Precision) -> int:
    """What the weights of a model take in memory."""
    from gpt2kit import _native

    return sum(
        4 * math.prod(tensor.shape)
        if len(tensor.shape) < 2 or name == "wpe.weight"
        else _native.packed_bytes(format_of(name, precision), *tensor.shape[:: 1 if _stands_upright(name) else -1])
        for name, tensor in checkpoint.tensors.items()
    )


def _place(checkpoint: Checkpoint, part: str) -> Path | None:
    """Where this part of a model is kept; nowhere for one that is small, adapted, or no single file or directory."""
    origin = Path(checkpoint.origin)
    size_bytes = sum(tensor.size_bytes for tensor in checkpoint.tensors.values())
    if size_bytes < WORTH_KEEPING or checkpoint.adapters or not origin.exists():
        return None
    return origin / f".packed-{part}" if origin.is_dir() else origin.with_name(f".{origin.name}.packed-{part}")


def _pack(checkpoint: Checkpoint, precision: Precision, threads: int) -> Iterator[tuple[str, np.ndarray]]:
    for name, tensor in checkpoint.tensors.items():
        values = np.asarray(tensor.read_float32())
        if precision in ("int8", "int4") and not (values.max() < LARGEST and values.min() > -LARGEST):
            raise ConfigError(
                f"{name} holds NaN or numbers beyond {LARGEST:,.0f}, for which {precision} has no place;"
                " `gpt2 inspect --tensors` shows all such tensors, --precision bf16 or fp32 takes them as they are"
            )
        if _stands_upright(name):  # and without bias
            yield name, _matrix(values, format_of(name, precision), threads)
            yield name.replace("weight", "bias"), np.zeros(_filled_up(len(values)), np.float32)
        elif name == "wpe.weight":
            yield name, np.ascontiguousarray(values).reshape(-1)
        elif values.ndim == 2:
            yield name, _matrix(values.T, format_of(name, precision), threads)
        else:
            yield name, np.pad(values, (0, _filled_up(values.size) - values.size))


def _matrix(values_OI: np.ndarray, format: str, threads: int) -> np.ndarray:
    from gpt2kit import _native  # a tokenizer is kept where no native engine was built, too

    packed = _native.huge_pages(_native.packed_bytes(format, *values_OI.shape))
    _native.pack(format, values_OI, packed, threads)
    return packed


def _stands_upright(name: str) -> bool:
    """Whether a matrix is [outputs, inputs] in a checkpoint too."""
    return name in ("wte.weight", "lm_head.weight")


def _filled_up(size: int) -> int:
    return -(-size // PANEL) * PANEL


# --- the file ---


def _stamp(checkpoint: Checkpoint) -> list[list[Any]]:
    """What tells, nearly always and at once, whether a model has changed: settings; names, sizes and times of files."""
    origin = Path(checkpoint.origin)
    files = [file for file in origin.iterdir() if not file.name.startswith(".")] if origin.is_dir() else [origin]
    found = sorted((file.name, file.stat()) for file in files if file.is_file())
    return [[repr(checkpoint.config)], *([name, stat.st_size, stat.st_mtime_ns] for name, stat in found)]


def _content(checkpoint: Checkpoint) -> str:
    """What tells it for certain."""
    digest = hashlib.sha256(repr((checkpoint.config, [*checkpoint.tensors])).encode())
    for tensor in checkpoint.tensors.values():
        digest.update(tensor.read_bytes())
    return digest.hexdigest()


def _keep(file: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    with suppress(OSError):  # a directory that is not ours to write in, a full disk: made again next time
        _write(file, about, arrays)


def _write(file: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    places, end = {}, 0
    for name, array in arrays.items():
        places[name] = [str(array.dtype), end, array.nbytes]
        end += -(-array.nbytes // PAGE) * PAGE
    header = json.dumps({**about, "arrays": places, "bytes": end}).encode()
    with replacing(file) as out:
        out.write(MAGIC + struct.pack("<Q", len(header)) + header)
        for array in arrays.values():
            out.write(bytes(-out.tell() % PAGE))
            out.write(array.data)
        out.write(bytes(-out.tell() % PAGE))


def _open(file: Path) -> tuple[dict[str, Any], Arrays]:
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
        arrays = {
            name: np.frombuffer(memory, dtype, size // np.dtype(dtype).itemsize, first + place)
            for name, (dtype, place, size) in header["arrays"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return {}, {}
    return header, arrays
