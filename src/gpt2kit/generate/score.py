"""How likely a text is: the log-probability of every token, each counted once, with context carried along.

A text longer than the window is read in overlapping windows: each later one starts with the newest half of the one
before, so every token after the first window is judged with at least half a window before it.
Shape letters: T tokens judged   N alternatives   V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpt2kit.generate.engine import Engine, Row
from gpt2kit.generate.sampling import alternatives, logprobs_of

CHUNK = 128  # positions whose logits exist at once


@dataclass(frozen=True)
class Scores:
    """One entry per judged token; the first id of a text is context only."""

    ids_T: np.ndarray
    logprobs_T: np.ndarray
    """float64, natural logarithm."""
    ranks_T: np.ndarray
    """int64, the place among the vocabulary: 1 is the likeliest; of equal ones the lower id comes first."""
    top: tuple[tuple[tuple[int, float], ...], ...]
    """For every token the likeliest alternatives, id and log-probability, likeliest first; empty if none were asked."""


def score(engine: Engine, ids: Sequence[int], top: int = 0) -> Scores:
    """Judge ids[1:], each given all ids before it that the window still holds. Slot 0 of the engine must be free."""
    chunks = list(score_chunks(engine, ids, top))
    empty = np.empty(0)
    return Scores(
        np.concatenate([empty.astype(np.int64), *(chunk.ids_T for chunk in chunks)]),
        np.concatenate([empty, *(chunk.logprobs_T for chunk in chunks)]),
        np.concatenate([empty.astype(np.int64), *(chunk.ranks_T for chunk in chunks)]),
        tuple(entry for chunk in chunks for entry in chunk.top),
    )


def score_chunks(engine: Engine, ids: Sequence[int], top: int = 0) -> Iterator[Scores]:
    """The same, piece by piece, for texts of any length."""
    window = engine.config.window
    held, fed = 0, 0  # ids in the slot; ids judged from, over all
    try:
        while fed < len(ids) - 1:
            if held == window:
                engine.truncate(0, 0)
                held = window // 2
                if held:
                    engine.step([Row(0, ids[fed - held : fed], "none")])
            count = min(CHUNK, window - held, len(ids) - 1 - fed)
            logits_TV = engine.step([Row(0, ids[fed : fed + count], "all")])
            yield _judge(logits_TV, np.asarray(ids[fed + 1 : fed + count + 1], np.int64), top)
            held, fed = held + count, fed + count
    finally:
        engine.truncate(0, 0)


def _judge(logits_TV: np.ndarray, ids_T: np.ndarray, top: int) -> Scores:
    found = tuple(alternatives(logits_V, top) for logits_V in logits_TV) if top else ()
    return Scores(ids_T, logprobs_of(logits_TV, ids_T), _ranks(logits_TV, ids_T), found)


def _ranks(logits_TV: np.ndarray, ids_T: np.ndarray) -> np.ndarray:
    own_T1 = np.take_along_axis(logits_TV, ids_T[:, None], axis=-1)
    equal_TV = logits_TV == own_T1
    equal_TV &= np.arange(logits_TV.shape[-1]) < ids_T[:, None]
    return 1 + np.count_nonzero(logits_TV > own_T1, axis=-1) + np.count_nonzero(equal_TV, axis=-1)
