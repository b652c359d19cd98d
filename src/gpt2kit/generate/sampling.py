"""From logits to token ids: the one definition of how a token is chosen. Pure functions, no hidden random state.

The order, whatever the order of the settings:
    1. a forced id is taken as it is, whatever is banned
    2. logit_bias; repetition_penalty; presence_penalty and frequency_penalty
    3. bans: banned_ids, what may not come at this step (an end before the minimum length, the rest of a banned word),
       what would complete an n-gram again, the padding of gpt2-ml
    4. at temperature 0 the likeliest, of equal ones the lowest id
    5. top_k, temperature, the top_p of the chain, min_p, typical_p: each sees what those before it have left
    6. one uniform number picks by inverse CDF in order of token id
Shape letters: R rows (one a sequence)   V vocabulary   C candidates of a row, in order of token id
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.errors import Gpt2kitError, RequestError
from gpt2kit.generate.filters import (
    ids_completing_ngram,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_top_p_gpt2_ml,
    keep_top_p_nshepperd,
    keep_top_p_openai,
    keep_typical,
    softmax,
)
from gpt2kit.generate.quick_sampling import is_quick, log_sum_exp, sample_rows


@dataclass(frozen=True, slots=True)
class RowState:
    """All that the choice for one row depends on, besides its logits."""

    sampling: SamplingConfig
    """With a seed."""
    ids: Sequence[int]
    """The whole sequence so far, prompt included."""
    prompt_length: int
    sample: int = 0
    """Which of several samples of one request this is."""
    banned: Sequence[int] | np.ndarray = ()
    """Ids banned for this step only: ends before the minimum length, what would complete a banned word."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The ids chosen, and the log-probabilities the model gave them, before any filter."""

    ids_R: np.ndarray
    logprobs_R: np.ndarray


def choose(logits_RV: np.ndarray, states: Sequence[RowState]) -> Choice:
    """Choose one token a row.

    Args:
        logits_RV: float32, shape (rows, vocabulary); not changed.
        states: one a row.

    Returns:
        ids (int64) and log-probabilities (float64), shape (rows,). A row's choice depends on nothing but that row.
    """
    sums_R = _log_sum_exp(logits_RV)  # first of all: it refuses what is no number
    ids_R = np.array([_forced_id(state) for state in states], np.int64)
    quick, adjusted, untouched = list[int](), list[np.ndarray](), True
    for row in np.flatnonzero(ids_R < 0).tolist():
        found_V = logits_RV[row]
        logits_V = _adjusted(found_V, states[row])
        if is_quick(states[row].sampling):
            quick.append(row)
            adjusted.append(logits_V)
            untouched &= logits_V is found_V
        else:
            ids_R[row] = _choose_one(logits_V, states[row])
    if quick:
        together_RV = logits_RV if untouched and len(quick) == len(states) else np.stack(adjusted)
        settings, draws = zip(*((states[row].sampling, _draw(states[row])) for row in quick), strict=True)
        ids_R[quick] = sample_rows(together_RV, settings, draws)
    return Choice(ids_R, _logits_of(logits_RV, ids_R) - sums_R)


def logprobs_of(logits_RV: np.ndarray, ids_R: np.ndarray) -> np.ndarray:
    """Log-probabilities (float64, shape (rows,)) that the model gives these ids, one a row."""
    return np.asarray(_logits_of(logits_RV, ids_R) - _log_sum_exp(logits_RV))


def entropy_of(logits_V: np.ndarray) -> float:
    """How undecided the model is, in nats: the mean of -log p; 0 where one id is certain."""
    # What is 1000 below the likeliest has the probability 0 in float64, as -inf has, but can be multiplied with it.
    below_V = np.maximum(np.subtract(logits_V, _finite(logits_V.max()), dtype=np.float64), -1000)
    weights_V = np.exp(below_V)
    total = weights_V.sum()
    return float(np.log(total) - weights_V @ below_V / total)


def alternatives(logits_V: np.ndarray, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest ids with their log-probabilities, likeliest first, equal ones in order of id."""
    if not count:
        return ()
    candidates_C = np.flatnonzero(keep_top_k(logits_V, count))
    best_C = candidates_C[np.argsort(-logits_V[candidates_C], kind="stable")][:count]
    logprobs_C = logits_V[best_C].astype(np.float64) - _log_sum_exp(logits_V[None])[0]
    return tuple(zip(best_C.tolist(), logprobs_C.tolist(), strict=True))


def uniform(seed: int, sample: int, position: int) -> float:
    """The number in [0, 1) that decides the token at absolute position `position`.

    The upper 53 bits of the first output of Philox4x64-10 (Salmon et al. 2011) with key (seed, 0) and counter
    (position, sample, 0, 0), as numpy counts: it adds 1 to the counter before use.
    """
    bits = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=[position, sample, 0, 0]).random_raw()
    return float(int(bits) >> 11) * 2.0**-53


def _logits_of(logits_RV: np.ndarray, ids_R: np.ndarray) -> np.ndarray:
    return np.take_along_axis(logits_RV, ids_R[:, None], axis=-1)[:, 0].astype(np.float64)


def _log_sum_exp(logits_RV: np.ndarray) -> np.ndarray:
    return _finite(log_sum_exp(logits_RV))


def _finite(values: np.ndarray) -> np.ndarray:
    """Those of all rows."""
    if not np.isfinite(values).all():
        raise Gpt2kitError("the model's logits are not numbers; look for NaN with: gpt2 inspect MODEL --tensors")
    return values


def _forced_id(state: RowState) -> int:
    """-1 where the row is free."""
    generated = len(state.ids) - state.prompt_length
    forced = state.sampling.forced_ids
    return forced[generated] if generated < len(forced) else -1


def _draw(state: RowState) -> float:
    seed = state.sampling.seed
    if state.sampling.temperature == 0:
        return 0.0  # nothing is left to chance
    assert seed is not None, "a seed is drawn before the first choice"
    return uniform(seed, state.sample, len(state.ids))


def _choose_one(logits_V: np.ndarray, state: RowState) -> int:
    if state.sampling.temperature == 0:
        return int(logits_V.argmax())
    candidates_C, logits_C = _filtered(logits_V, state.sampling)
    cdf_C = np.cumsum(softmax(logits_C))
    drawn = _draw(state) * cdf_C[-1]
    return int(candidates_C[min(int(np.searchsorted(cdf_C, drawn, side="right")), candidates_C.size - 1)])


def _adjusted(logits_V: np.ndarray, state: RowState) -> np.ndarray:
    """Logits after bias, bans and penalties; the input itself where nothing asks for a change."""
    sampling, bans = state.sampling, [state.sampling.banned_ids, state.banned]
    if sampling.no_repeat_ngram:
        bans.append(ids_completing_ngram(state.ids, sampling.no_repeat_ngram))
    if sampling.chain == "gpt2-ml":
        bans.append([0])  # its padding, which the old program pushed down
    banned = np.concatenate([np.asarray(ids, np.int64) for ids in bans])
    penalised = sampling.repetition_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty
    if not (banned.size or penalised or sampling.logit_bias):
        return logits_V
    logits_V = logits_V.copy()
    for id, bias in sampling.logit_bias.items():
        logits_V[id] += bias
    if sampling.repetition_penalty != 1:
        seen = np.unique(np.asarray(state.ids, np.int64))
        factor = np.float32(sampling.repetition_penalty)
        # Keskar et al. 2019 divide; negative logits are multiplied, as transformers does, so that both sink.
        logits_V[seen] = np.where(logits_V[seen] > 0, logits_V[seen] / factor, logits_V[seen] * factor)
    written, counts = np.unique(np.asarray(state.ids[state.prompt_length :], np.int64), return_counts=True)
    logits_V[written] -= np.float32(sampling.presence_penalty) + np.float32(sampling.frequency_penalty) * counts
    logits_V[banned] = -np.inf
    if logits_V.max() == -np.inf:
        raise RequestError("every token is banned, so none can be chosen; allow some")
    return logits_V


def _filtered(logits_V: np.ndarray, sampling: SamplingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Candidate ids and their logits after temperature and the filters of the chain."""
    kept_V = logits_V > -np.inf
    if sampling.top_k and not (sampling.chain == "nshepperd" and sampling.top_p > 0):
        # Before the temperature, which keeps the order: the same tokens, and few are left to scale.
        kept_V &= keep_top_k(logits_V, sampling.top_k)
    candidates_C = np.flatnonzero(kept_V)
    with np.errstate(over="ignore"):  # a temperature next to 0 leaves the likeliest alone
        logits_C = logits_V if candidates_C.size == logits_V.size else logits_V[candidates_C]
        logits_C = np.subtract(logits_C, logits_V.max(), dtype=np.float64) / sampling.temperature

    def narrow(keep_C: np.ndarray) -> None:
        nonlocal candidates_C, logits_C
        candidates_C, logits_C = candidates_C[keep_C], logits_C[keep_C]

    if sampling.chain == "openai":
        narrow(keep_top_p_openai(logits_C, sampling.top_p))
    elif sampling.chain == "gpt2-ml":
        narrow(keep_top_p_gpt2_ml(logits_C, sampling.top_p))
    elif sampling.chain == "nshepperd" and 0 < sampling.top_p < 1:
        narrow(keep_top_p_nshepperd(logits_C, sampling.top_p))
    elif 0 < sampling.top_p < 1:
        narrow(keep_top_p(logits_C, sampling.top_p))
    if sampling.min_p:
        narrow(keep_min_p(logits_C, sampling.min_p))
    if sampling.typical_p < 1:
        narrow(keep_typical(logits_C, sampling.typical_p))
    return candidates_C, logits_C
