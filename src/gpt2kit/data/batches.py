"""Which windows a step learns from: a pure function of seed and step, so a resume needs no position.

Shape letters: B windows   T tokens a window
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Corpus:
    """Encoded text and the length of the windows drawn from it."""

    ids: np.ndarray
    """uint16 or uint32, one after the other."""
    window: int


@dataclass(frozen=True)
class Batch:
    """What one step sees; int64, shape (B, T)."""

    inputs_BT: np.ndarray
    targets_BT: np.ndarray
    """The id after each input; -100 carries no loss."""


def batch_at(corpus: Corpus, seed: int, step: int, size: int, part: int = 0, parts: int = 1) -> Batch:
    """The windows of one step, drawn evenly from all positions.

    Args:
        corpus: at least window + 1 ids.
        seed: chooses the order of everything.
        step: counted from 0.
        size: windows in the whole step.
        part: which of `parts` equal slices of the step to return: micro-batches and ranks.
        parts: a divisor of `size`.
    """
    assert size % parts == 0, f"{size} windows cannot be cut into {parts} equal parts"
    draws = np.random.Generator(np.random.Philox(key=np.array([seed, 0], np.uint64), counter=[0, 0, 0, step]))
    starts_B = draws.integers(0, corpus.ids.size - corpus.window, size)
    share = size // parts
    return _windows(corpus, starts_B[part * share : (part + 1) * share])


def consecutive_batches(corpus: Corpus, size: int) -> Iterator[Batch]:
    """Every whole window once, in order, `size` a batch, the last batch perhaps smaller: for validation."""
    starts = np.arange(0, corpus.ids.size - corpus.window, corpus.window)
    for first in range(0, starts.size, size):
        yield _windows(corpus, starts[first : first + size])


def hold_out(ids: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut off the last `share` of `ids`: what is learnt from, what is not."""
    border = ids.size - round(ids.size * share)
    return ids[:border], ids[border:]


def _windows(corpus: Corpus, starts_B: np.ndarray) -> Batch:
    ids_BT = corpus.ids[starts_B[:, None] + np.arange(corpus.window + 1)].astype(np.int64)
    return Batch(ids_BT[:, :-1], ids_BT[:, 1:])
