"""Look at a checkpoint without loading it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gpt2kit.checkpoint import CHUNK, Checkpoint, LazyTensor
from gpt2kit.progress import Progress, Report, silent


@dataclass(frozen=True)
class TensorFigures:
    """One tensor, and what its values are like."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    not_finite: int
    """How many values are NaN or infinite: should be none."""


def tensor_figures(checkpoint: Checkpoint, report: Report = silent) -> list[TensorFigures]:
    """Read every tensor once and measure it."""
    figures = []
    for done, (name, tensor) in enumerate(checkpoint.tensors.items(), 1):
        figures.append(TensorFigures(name, tensor.storage, tensor.shape, *_figures(tensor)))
        report(Progress("inspect", done, len(checkpoint.tensors), "tensor"))
    return figures


def _figures(tensor: LazyTensor) -> tuple[float, float, int]:
    """Mean and deviation of the finite values, and the number of others; a piece in memory at a time."""
    values = tensor.read().reshape(-1)
    parts = [slice(begin, begin + CHUNK) for begin in range(0, values.size, CHUNK)]

    def finite(part: slice) -> np.ndarray:
        wide = replace(tensor, load=lambda: values[part]).read_float32().astype(np.float64)
        return wide[np.isfinite(wide)]

    count = sum(finite(part).size for part in parts)
    mean = sum(float(finite(part).sum()) for part in parts) / max(count, 1)
    variance = sum(float(((finite(part) - mean) ** 2).sum()) for part in parts) / max(count, 1)
    return mean, variance**0.5, values.size - count
