"""Which tokens may come next: each filter looks at candidates and says whom it keeps. Pure numpy, one sequence.

Shape letters: C candidates, in order of token id   N those of them that matter, likeliest first
Every filter takes `logits_C` (scaled) and returns a boolean mask of the same shape that keeps at least one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def softmax(logits_C: np.ndarray) -> np.ndarray:
    """Probabilities, float64."""
    exp_C = np.subtract(logits_C, logits_C.max(), dtype=np.float64)
    np.exp(exp_C, out=exp_C)
    return exp_C / exp_C.sum()


def keep_top_k(logits_C: np.ndarray, k: int) -> np.ndarray:
    """The k likeliest; ties with the k-th survive. Source: Fan et al. 2018, 5.4; `top_k_logits` in openai/gpt-2."""
    if k >= logits_C.size:
        return np.ones(logits_C.shape, bool)
    return logits_C >= np.partition(logits_C, -k)[-k]


def keep_top_p(logits_C: np.ndarray, p: float) -> np.ndarray:
    """The smallest set whose probabilities reach p, the one that crosses it included; equal logits in order of id.

    Source: Holtzman et al. 2020, section 3.1.
    """
    order_N, probs_N = _likeliest_first(logits_C, p)
    return _mask(logits_C, order_N[np.cumsum(probs_N) - probs_N < p])


def keep_top_p_nshepperd(logits_C: np.ndarray, p: float) -> np.ndarray:
    """nshepperd's and gpt-2-simple's rule: as `keep_top_p`, but ties with the last one kept survive."""
    return logits_C >= logits_C[keep_top_p(logits_C, p)].min()


def keep_top_p_openai(logits_C: np.ndarray, p: float) -> np.ndarray:
    """openai/gpt-2's rule: the token that crosses p is left out; ties with the last one kept survive."""
    if p == 1:  # only rounding takes a sum above 1
        return np.ones(logits_C.shape, bool)
    order_N, probs_N = _likeliest_first(logits_C, p)
    reaching = int((np.cumsum(probs_N) <= p).sum())
    return logits_C >= logits_C[order_N[max(reaching - 1, 0)]]


def keep_top_p_gpt2_ml(logits_C: np.ndarray, p: float) -> np.ndarray:
    """imcaspar/gpt2-ml's rule: the token that crosses p is left out, the likeliest always kept."""
    if p > 0.999999:
        return np.ones(logits_C.shape, bool)
    order_N, probs_N = _likeliest_first(logits_C, p)
    kept_N = np.cumsum(probs_N) < p
    kept_N[0] = True
    return _mask(logits_C, order_N[kept_N])


def keep_min_p(logits_C: np.ndarray, p: float) -> np.ndarray:
    """Tokens at least p times as likely as the likeliest. Source: Nguyen et al. 2024, section 3."""
    return logits_C >= logits_C.max() + np.log(p)


def keep_typical(logits_C: np.ndarray, p: float) -> np.ndarray:
    """Tokens whose surprise is nearest to its mean, until their probabilities reach p. Source: Meister et al. 2022."""
    probs_C = softmax(logits_C)
    surprise_C = -np.log(np.maximum(probs_C, np.finfo(np.float64).tiny))
    order_C = np.argsort(np.abs(surprise_C - (probs_C * surprise_C).sum()), kind="stable")
    sorted_C = probs_C[order_C]
    return _mask(logits_C, order_C[np.cumsum(sorted_C) - sorted_C < p])


def ids_completing_ngram(ids: Sequence[int], n: int) -> list[int]:
    """Ids that would complete an n-gram which `ids` already hold."""
    if len(ids) < n:
        return []
    ids_S = np.asarray(ids, np.int64)
    starts = np.arange(len(ids) - n + 1)
    for place in reversed(range(n - 1)):  # its last id first: few places agree in that
        starts = starts[ids_S[starts + place] == ids_S[len(ids) - n + 1 + place]]
        if not starts.size:
            break
    completing: list[int] = ids_S[starts + n - 1].tolist()
    return completing


def _likeliest_first(logits_C: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest N in order, equal ones in order of id, and their probabilities: enough to exceed p, or all."""
    probs_C = softmax(logits_C)
    # Those below their share of 1 - p are together less than 1 - p; sums round by less than 1e-9.
    enough_N = np.flatnonzero(probs_C >= max(1 - p - 1e-9, 0) / probs_C.size)
    order_N = enough_N[np.argsort(-logits_C[enough_N], kind="stable")]
    return order_N, probs_C[order_N]


def _mask(logits_C: np.ndarray, kept: np.ndarray) -> np.ndarray:
    mask_C = np.zeros(logits_C.shape, bool)
    mask_C[kept] = True
    return mask_C
