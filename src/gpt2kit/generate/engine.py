"""What an engine is: ids in, logits out, a memory per slot. Engines know no text, no sampling, no queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from gpt2kit.config.model import ModelConfig


@dataclass(frozen=True, slots=True)
class Row:
    """What one slot does in a step: `ids` are appended to it."""

    slot: int
    ids: Sequence[int]
    logits: Literal["none", "last", "all"] = "last"


class Engine(Protocol):
    """A model that is ready to think."""

    name: str
    """What it is called where one is chosen."""
    config: ModelConfig
    slots: int
    """Sequences it can hold at once."""
    capacity: int
    """Ids it can hold at once, over all slots; one full window at least."""
    exact_in_batches: bool
    """A row alone gives the same bits as in any batch."""

    def step(self, rows: Sequence[Row]) -> np.ndarray:
        """Think once. At most one row a slot; no slot may grow beyond the window.

        Returns:
            float32 (wanted positions, V), in the order of the rows; valid until the next step.
        """

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` ids of a slot; 0 frees it."""

    def share(self, source: int, target: int, length: int) -> None:
        """Start the free slot `target` with the first `length` ids of `source`."""

    def close(self) -> None:
        """Give the memory back."""
