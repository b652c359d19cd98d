"""Which windows a step learns from: a pure function of seed and step, so a resume needs no position.

Shape letters: B windows   T tokens a window   S spans   N documents
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

IGNORED = -100  # a target that carries no loss
ROUNDS = 6  # of the Feistel network that orders the windows
NOISE = 0x6E6F697365  # keeps the draws of noise apart from those of the windows


class Tokens(Protocol):
    """Encoded documents, one after the other; `data/shards.py` keeps them on disk."""

    @property
    def total(self) -> int: ...
    @property
    def ends(self) -> np.ndarray:
        """The position after each document, int64 (N,); the last is `total`."""
        ...

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The ids at these positions, int64, in their shape."""
        ...


@dataclass(frozen=True)
class Corpus:
    """Parts of encoded text, read as one, and the length of the windows drawn from it."""

    tokens: Tokens
    spans_S2: np.ndarray
    """Where each part starts and ends in `tokens`, ascending, int64."""
    window: int

    @cached_property
    def borders(self) -> np.ndarray:
        """Where each part ends in the text that all of them make."""
        return np.cumsum(self.spans_S2[:, 1] - self.spans_S2[:, 0])

    @property
    def total(self) -> int:
        """How many tokens all parts have."""
        return int(self.borders[-1]) if self.borders.size else 0

    @property
    def windows(self) -> int:
        """How many windows one pass reads: one fewer than fit, so that every pass can cut them elsewhere."""
        return max(1, (self.total - 1) // self.window - 1)

    def take(self, positions: np.ndarray) -> np.ndarray:
        """The ids at these positions, counted over all parts; int64."""
        if len(self.spans_S2) == 1:
            return self.tokens.take(positions + self.spans_S2[0, 0])
        span = np.searchsorted(self.borders, positions, side="right")
        return self.tokens.take(positions - self.borders[span] + self.spans_S2[span, 1])


@dataclass(frozen=True)
class Batch:
    """What one step sees; int64, shape (B, T)."""

    inputs_BT: np.ndarray
    targets_BT: np.ndarray
    """The id after each input; -100 carries no loss."""


def batch_at(corpus: Corpus, seed: int, step: int, size: int, part: int = 0, parts: int = 1) -> Batch:
    """The windows of one step: one pass after the other over all windows, each in its own order, cut at other places.

    Args:
        corpus: at least window + 1 ids.
        seed: chooses the order of everything.
        step: counted from 0.
        size: windows in the whole step.
        part: which of `parts` equal slices of the step to return: micro-batches and ranks.
        parts: a divisor of `size`.
    """
    assert size % parts == 0, f"{size} windows cannot be cut into {parts} equal parts"
    share = size // parts
    places_B = step * size + part * share + np.arange(share)
    passes_B, places_B = np.divmod(places_B, corpus.windows)
    starts_B = np.empty(share, np.int64)
    for number in np.unique(passes_B):
        draws = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
        shift = draws.integers(0, corpus.total - corpus.windows * corpus.window)
        keys = draws.integers(0, 2**64, ROUNDS, np.uint64)
        here = passes_B == number
        starts_B[here] = shift + corpus.window * shuffled(places_B[here], corpus.windows, keys)
    ids_BT = corpus.take(starts_B[:, None] + np.arange(corpus.window + 1))
    return Batch(ids_BT[:, :-1], ids_BT[:, 1:])


def with_noise(inputs_BT: np.ndarray, share: float, vocab_size: int, seed: int, first_window: int) -> np.ndarray:
    """The inputs, of which the share is replaced by ids drawn at random; the same however a step is cut into parts.

    Args:
        inputs_BT: consecutive windows of a run.
        share: probability of each id to be replaced, in [0, 1).
        vocab_size: ids are drawn below it.
        seed: of the run.
        first_window: how many windows the run has seen before these.
    """
    noisy_BT = inputs_BT.copy()
    for row, window in enumerate(range(first_window, first_window + len(inputs_BT))):
        draws = np.random.Generator(np.random.Philox(key=np.array([seed ^ NOISE, window], np.uint64)))
        replaced = np.flatnonzero(draws.random(inputs_BT.shape[1]) < share)
        noisy_BT[row, replaced] = draws.integers(0, vocab_size, replaced.size)
    return noisy_BT


def shuffled(places: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """Where `places` in range(count) go in a random order of all of them, found without making that order.

    A Feistel network over the next power of 4, walked until the place is below `count`.
    Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 4.
    """
    bits = max(1, (int(count - 1).bit_length() + 1) // 2)
    half, mask = np.uint64(bits), np.uint64(2**bits - 1)
    places = places.astype(np.uint64)
    waiting = np.ones(places.shape, bool)
    while waiting.any():
        left, right = places[waiting] >> half, places[waiting] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        places[waiting] = left << half | right
        waiting = places >= count
    return places.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A hash of 64 bits to 64 bits. Source: Steele et al. 2014, SplitMix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def consecutive_batches(corpus: Corpus, size: int, windows: int = 0) -> Iterator[Batch]:
    """Every token but the first as a target once, in order, `size` windows a batch; -100 fills the last one up.

    With `windows`, only so many of them, spread evenly.
    """
    starts = np.arange(0, corpus.total - 1, corpus.window)
    if 0 < windows < starts.size:
        starts = starts[np.arange(windows) * starts.size // windows]
    for first in range(0, starts.size, size):
        positions_BT = starts[first : first + size, None] + np.arange(corpus.window + 1)
        ids_BT = corpus.take(np.minimum(positions_BT, corpus.total - 1))
        targets_BT = np.where(positions_BT[:, 1:] < corpus.total, ids_BT[:, 1:], IGNORED)
        yield Batch(ids_BT[:, :-1], targets_BT)


def hold_out(tokens: Tokens, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Spans to learn from, and spans to hold out: whole documents where they are small enough, chosen at random.

    The choice depends on the text and `share` alone, so that runs can be compared. Where documents make up less than
    half of what is wanted (a single book), the end of the longest one is held out instead.
    """
    wanted = min(round(tokens.total * share), tokens.total - 1)  # something is left to learn from
    starts_N = np.concatenate([[0], tokens.ends[:-1]])
    lengths_N = tokens.ends - starts_N
    held_N, room, shortest = np.zeros(lengths_N.size, bool), wanted, lengths_N.min()
    for number in np.random.Generator(np.random.Philox(key=0)).permutation(lengths_N.size):
        if lengths_N[number] <= room:
            held_N[number], room = True, room - lengths_N[number]
        if room < shortest:
            break
    if room * 2 <= wanted:
        spans_N2 = np.stack([starts_N, tokens.ends], axis=1)
        return _joined(spans_N2[~held_N]), _joined(spans_N2[held_N])
    end = int(tokens.ends[lengths_N.argmax()])
    border = end - min(wanted, int(lengths_N.max()) - 1)
    learnt = np.array([[0, border], [end, tokens.total]])
    return learnt[learnt[:, 1] > learnt[:, 0]], np.array([[border, end]])


def _joined(spans_S2: np.ndarray) -> np.ndarray:
    """Neighbours made one."""
    apart = spans_S2[1:, 0] != spans_S2[:-1, 1]
    starts, ends = np.flatnonzero(np.r_[True, apart]), np.flatnonzero(np.r_[apart, True])
    return np.stack([spans_S2[starts, 0], spans_S2[ends, 1]], axis=1) if len(spans_S2) else spans_S2
