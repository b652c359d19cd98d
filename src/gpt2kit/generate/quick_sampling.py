"""The parts of the choice of a token that C++ does faster than numpy, where it was built; sampling.py decides when.

Shape letters: R rows   V vocabulary
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from gpt2kit.config.sampling import SamplingConfig

try:
    from gpt2kit import _native
except ImportError:
    _native = None  # type: ignore[assignment]

FEW_CANDIDATES = 1000  # numpy finds the largest of more as quickly
THREADS = os.cpu_count() or 1


def is_quick(sampling: SamplingConfig) -> bool:
    """Whether `sample_rows` may and should choose: nothing but temperature, top_k and top_p is asked."""
    is_plain = sampling.chain == "standard" and sampling.min_p == 0 and sampling.typical_p == 1
    return _native is not None and is_plain and (sampling.temperature == 0 or sampling.top_k <= FEW_CANDIDATES)


def sample_rows(logits_RV: np.ndarray, samplings: Sequence[SamplingConfig], uniforms: Sequence[float]) -> np.ndarray:
    """The ids (int64, shape (rows,)) that numpy would choose of finite logits, one number in [0, 1) deciding each."""
    ids_R = np.empty(len(samplings), np.int64)
    _native.sample_rows(
        logits_RV,
        np.array([sampling.temperature for sampling in samplings], np.float64),
        np.array([sampling.top_k for sampling in samplings], np.int64),
        np.array([sampling.top_p for sampling in samplings], np.float64),
        np.array(uniforms, np.float64),
        ids_R,
        THREADS,
    )
    return ids_R


def log_sum_exp(logits_RV: np.ndarray) -> np.ndarray:
    """float64, shape (rows,); NaN where the highest logit is no finite number."""
    sums_R = np.empty(len(logits_RV))
    if _native is not None and logits_RV.strides[1] == logits_RV.itemsize:
        _native.log_sum_exp(logits_RV, sums_R, THREADS)
        return sums_R
    for row, logits_V in enumerate(logits_RV):
        top = logits_V.max()
        sums_R[row] = top + np.log(np.exp(logits_V - top).sum(dtype=np.float64)) if np.isfinite(top) else np.nan
    return sums_R
