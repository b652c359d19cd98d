"""What every slot of an engine holds, how much room is left, and which beginnings can be used again.

The slot of a finished sequence is idle: it keeps its ids until another sequence needs the slot or its memory. A text
that goes on from there, or is tried again, need not be read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress, count
from operator import ne

from gpt2kit.generate.engine import Engine

WORTH_SHARING = 8  # fewer ids are read again sooner than copied


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next(compress(count(), map(ne, one, other)), min(len(one), len(other)))


class Slots:
    """Hands out the slots of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.held: list[list[int]] = [[] for _ in range(engine.slots)]
        """The ids in every slot."""
        self._idle: dict[int, None] = {}  # the one left longest ago first
        self._reserved: dict[int, int] = {}  # slot in use -> ids that it may come to hold
        self.reset()

    def take(self, ids: Sequence[int], need: int) -> int | None:
        """A slot for a sequence of `ids` that may grow to `need`; None while slots or memory are in use by others.

        The slot keeps what it holds of the sequence's beginning. A sequence that is alone gets its slot in any case.
        """
        in_use = sum(self._reserved.values())
        if not self._idle or (self._reserved and in_use + need > self._engine.capacity):
            return None
        slot = self._best_idle(ids[:-1])
        del self._idle[slot]
        self._reserved[slot] = need
        kept = shared_length(ids[:-1], self.held[slot])
        self._cut(slot, kept if kept >= WORTH_SHARING else 0)
        excess = in_use + need + sum(len(self.held[idle]) for idle in self._idle) - self._engine.capacity
        for other in self._idle:
            if excess <= 0:
                break
            excess -= len(self.held[other])
            self._cut(other, 0)
        return slot

    def share(self, source: int, slot: int, length: int) -> None:
        """Start `slot` anew with the first `length` ids of `source`."""
        self._cut(slot, 0)
        self._engine.share(source, slot, length)
        self.held[slot] = self.held[source][:length]

    def clear(self, slot: int) -> None:
        """Empty a slot that stays in use."""
        self._cut(slot, 0)

    def leave(self, slot: int) -> None:
        """The sequence is over; its ids stay for others to begin with."""
        del self._reserved[slot]
        self._idle[slot] = None

    def forget(self) -> None:
        """Empty all idle slots."""
        for slot in self._idle:
            self._cut(slot, 0)

    def reset(self) -> None:
        """Take all slots back and empty them, whatever the engine believes that they hold."""
        self._reserved.clear()
        self._idle = dict.fromkeys(range(len(self.held)))
        for slot, ids in enumerate(self.held):
            self._engine.truncate(slot, 0)
            ids.clear()

    def longest_beginning(self, ids: Sequence[int]) -> tuple[int, int]:
        """The slot that holds most of the beginning of `ids`, and how much; (-1, 0) for none."""
        return self._longest(ids, range(len(self.held)))

    def _longest(self, ids: Sequence[int], slots: Iterable[int]) -> tuple[int, int]:
        found, length = -1, 0
        for slot in slots:
            held = self.held[slot]
            # Strangers are told from one id: what is longer also has the one after the longest so far.
            if length < min(len(ids), len(held)) and ids[length] == held[length]:
                common = shared_length(ids, held)
                found, length = (slot, common) if common > length else (found, length)
        return found, length

    def _best_idle(self, ids: Sequence[int]) -> int:
        slot, length = self._longest(ids, self._idle)
        # What would be lost of a slot taken over is worth less than what is kept of it.
        if length >= WORTH_SHARING and 2 * length >= len(self.held[slot]):
            return slot
        return min(self._idle, key=lambda idle: len(self.held[idle]) > 0)

    def _cut(self, slot: int, length: int) -> None:
        if len(self.held[slot]) > length:
            self._engine.truncate(slot, length)
            del self.held[slot][length:]
