"""How GGUF keeps numbers: plain, or rounded in blocks of a row. Of llama.cpp's kinds, the plain and the oldest ones.

Source: ggml/src/ggml-quants.c in github.com/ggml-org/llama.cpp. Blocks, little-endian:
    Q8_0   32 values: f16 scale d | 32 x i8 q                                         value = d q
    Q4_0   32 values: f16 scale d | 16 x u8, low halves values 0-15, high 16-31       value = d (q - 8)
    Q6_K  256 values: 128 x u8 low 4 bits | 64 x u8 high 2 bits | 16 x i8 scales | f16 d   value = d scale (q - 32)
Shape letters: N blocks   R rows
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpt2kit.errors import ConfigError


@dataclass(frozen=True)
class BlockKind:
    """One way to keep numbers. A row is a whole number of blocks."""

    name: str
    number: int
    """What the file calls it."""
    block: int
    """Values in a block."""
    block_bytes: int
    dtype: str = "float32"
    """What the values are."""
    stored: str | None = None
    """numpy's type of single values that lie there as they are."""
    values_of: Callable[[np.ndarray], np.ndarray] | None = None
    """From uint8 (N, block_bytes) to float32 (N, block)."""
    blocks_of: Callable[[np.ndarray], np.ndarray] | None = None
    """From float32 (N, block), rounded as llama.cpp's quantiser does, to uint8 (N, block_bytes)."""

    def bytes_of(self, values: int) -> int:
        """What so many values take."""
        return values // self.block * self.block_bytes

    def values(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """What rows (uint8) mean, of `dtype` and this shape; bfloat16 as its bits."""
        if self.stored:
            return rows.view(self.stored).reshape(shape)
        assert self.values_of
        with np.errstate(invalid="ignore", over="ignore"):  # a scale that is no number makes values that are none
            return self.values_of(rows.reshape(-1, self.block_bytes)).reshape(shape)

    def rounded(self, values_RC: np.ndarray) -> np.ndarray:
        """Rows of float32 in blocks: uint8, shape (rows, bytes a row). Raises ConfigError for what has no scale."""
        assert self.blocks_of, f"{self.name} is only read"
        blocks = self.blocks_of(values_RC.reshape(-1, self.block))
        if not np.isfinite(_scales(blocks[:, :2])).all():
            raise ConfigError(f"holds values that {self.name} has no scale for: NaN, or too large for float16")
        return blocks.reshape(len(values_RC), -1)


def _scales(column_N: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(column_N).view("<f2").astype(np.float32)


def _in_bytes(scales_N1: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # told by who asked
        return scales_N1.astype("<f2").view(np.uint8)


def _inverse(scales_N1: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(scales_N1 == 0, np.float32(0), np.float32(1) / scales_N1)


def _q8_0_values(blocks: np.ndarray) -> np.ndarray:
    return _scales(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q8_0_blocks(values: np.ndarray) -> np.ndarray:
    scales = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    exact = values * _inverse(scales)
    whole = np.trunc(exact)
    whole += np.sign(exact) * (np.abs(exact - whole) >= 0.5)  # C's roundf: halves away from zero
    with np.errstate(invalid="ignore"):
        return np.concatenate([_in_bytes(scales), whole.astype(np.int8).view(np.uint8)], axis=1)


def _q4_0_values(blocks: np.ndarray) -> np.ndarray:
    halves = blocks[:, 2:]
    whole = np.concatenate([halves & 15, halves >> 4], axis=1).astype(np.float32)
    return _scales(blocks[:, :2]) * (whole - np.float32(8))


def _q4_0_blocks(values: np.ndarray) -> np.ndarray:
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
    scales = largest / np.float32(-8)
    with np.errstate(invalid="ignore"):
        whole = np.minimum(np.trunc(values * _inverse(scales) + np.float32(8.5)), 15).astype(np.uint8)
    return np.concatenate([_in_bytes(scales), whole[:, :16] | whole[:, 16:] << 4], axis=1)


def _q6_k_values(blocks: np.ndarray) -> np.ndarray:
    low, high = blocks[:, :128].reshape(-1, 2, 1, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    low_bits = (low >> np.array([0, 4], np.uint8)[:, None]) & 15  # of 128 values: 64 in low halves, 64 in high ones
    high_bits = (high >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3  # 32 values for every two bits
    whole = low_bits.reshape(-1, 2, 4, 32) | high_bits << 4
    signed = whole.reshape(-1, 16, 16).astype(np.float32) - np.float32(32)
    return ((_scales(blocks[:, 208:210]) * scales)[:, :, None] * signed).reshape(-1, 256)


F32 = BlockKind("F32", 0, 1, 4, "float32", "<f4")
F16 = BlockKind("F16", 1, 1, 2, "float16", "<f2")
BF16 = BlockKind("BF16", 30, 1, 2, "bfloat16", "<u2")
Q8_0 = BlockKind("Q8_0", 8, 32, 34, values_of=_q8_0_values, blocks_of=_q8_0_blocks)
Q4_0 = BlockKind("Q4_0", 2, 32, 18, values_of=_q4_0_values, blocks_of=_q4_0_blocks)
Q6_K = BlockKind("Q6_K", 14, 256, 210, values_of=_q6_k_values)

KINDS = {kind.number: kind for kind in (F32, F16, Q4_0, Q8_0, Q6_K, BF16)}
"""All that are read, by number."""
PLAIN = {kind.dtype: kind for kind in (F32, F16, BF16)}
"""What holds values of a type as they are."""
