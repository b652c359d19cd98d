"""Look at a checkpoint without loading it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpt2kit.checkpoint import Checkpoint
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
        values = tensor.read_float32()
        finite = values[np.isfinite(values)]
        mean, deviation = (
            (float(finite.mean(dtype=np.float64)), float(finite.std(dtype=np.float64))) if finite.size else (0.0, 0.0)
        )
        figures.append(TensorFigures(name, tensor.dtype, tensor.shape, mean, deviation, values.size - finite.size))
        report(Progress("inspect", done, len(checkpoint.tensors), "tensor"))
    return figures
