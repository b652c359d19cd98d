"""The torch engine: the network of `model/gpt2.py` with a cache of keys and values, on any device torch knows.

Shape letters: B rows of a group   T new positions a row   D width   V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Self

import numpy as np
import torch

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError
from gpt2kit.generate.engine import Row
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.kv_cache import CacheView, KeyValueCache
from gpt2kit.model.memory import naming_exhaustion
from gpt2kit.model.weights import to_network

# Engines with so many slots keep all matrices column by column: 8 % more tokens/s with eight rows, the same with one,
# but 25 % fewer with two or three. The head gains that way for every batch, up to 1.8 times its own speed.
BATCH_SLOTS = 8


def usable_device(device: str) -> str:
    """`device`, or for "auto" the fastest there is. Raises ConfigError when torch cannot use it."""
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, works in usable.items() if works)
    if not usable[device]:
        raise ConfigError(
            f"torch cannot use the device {device} here; usable: {', '.join(n for n, w in usable.items() if w)}"
        )
    return device


class TorchEngine:
    """Rows that bring equally many ids think together, without padding. Used slots lie side by side in the cache."""

    exact_in_batches = False

    def __init__(self, checkpoint: Checkpoint, slots: int = 8, device: str = "cpu") -> None:
        network = to_network(checkpoint.config, checkpoint.tensors).requires_grad_(False).to(device).eval()
        if network.wte.weight.device.type == "cpu":
            _lay_out(network, for_batches=slots >= BATCH_SLOTS)
        self._think_with(network, slots)

    @classmethod
    def around(cls, network: GPT2, slots: int) -> Self:
        """An engine that thinks with a network as it is, and leaves it so; put it in eval mode first."""
        engine = cls.__new__(cls)
        engine._think_with(network, slots)
        return engine

    def _think_with(self, network: GPT2, slots: int) -> None:
        self.config: ModelConfig = network.config
        self.slots = slots
        self.network = network
        self.device = network.wte.weight.device
        self._cache = KeyValueCache(self.config, slots, self.device)
        self._slot_at: list[int] = []  # cache row -> slot
        self._length: dict[int, int] = {}  # slot -> ids in it

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> np.ndarray:
        """See Engine.step."""
        with naming_exhaustion("take fewer samples at once (batch_size)"):
            return self._step(rows)

    def _step(self, rows: Sequence[Row]) -> np.ndarray:
        for row in rows:
            self._open(row)
        logits_by_slot: dict[int, np.ndarray] = {}
        in_cache_order = sorted(rows, key=lambda row: (len(row.ids), self._slot_at.index(row.slot)))
        for _, group in groupby(in_cache_order, key=lambda row: len(row.ids)):
            self._think(list(group), logits_by_slot)
        wanted = [logits_by_slot[row.slot] for row in rows if row.logits != "none"]
        return np.concatenate(wanted) if wanted else np.empty((0, self.config.vocab_size), np.float32)

    def truncate(self, slot: int, length: int) -> None:
        """See Engine.truncate."""
        if slot not in self._length:
            return
        self._length[slot] = min(length, self._length[slot])
        if length == 0:
            self._close_gap(slot)

    def share(self, source: int, target: int, length: int) -> None:
        """See Engine.share."""
        assert target not in self._length, f"slot {target} is not free"
        self._length[target] = length
        self._slot_at.append(target)
        self._cache.copy_row(self._slot_at.index(source), self._slot_at.index(target), length)

    def close(self) -> None:
        """See Engine.close."""
        del self.network, self._cache

    def _open(self, row: Row) -> None:
        assert row.slot < self.slots, f"slot {row.slot} of {self.slots}"
        if row.slot not in self._length:
            self._length[row.slot] = 0
            self._slot_at.append(row.slot)
        assert 0 < len(row.ids) <= self.config.window - self._length[row.slot], "a row must fit the window"

    def _think(self, group: list[Row], logits_by_slot: dict[int, np.ndarray]) -> None:
        new = len(group[0].ids)
        lengths = [self._length[row.slot] for row in group]
        view = CacheView(self._cache, [self._slot_at.index(row.slot) for row in group], lengths, new)
        ids_BT = torch.tensor([list(row.ids) for row in group], device=self.device)
        x_BTD = self.network.hidden(ids_BT, view)
        for row in group:
            self._length[row.slot] += new
        last = [place for place, row in enumerate(group) if row.logits == "last"]
        for place, logits_V in zip(last, self._logits(x_BTD[last, -1]), strict=True):
            logits_by_slot[group[place].slot] = logits_V[None]
        for x_TD, row in zip(x_BTD, group, strict=True):
            if row.logits == "all":
                logits_by_slot[row.slot] = self._logits(x_TD)

    def _logits(self, x_BD: torch.Tensor) -> np.ndarray:
        return self.network.head(x_BD).float().cpu().numpy()

    def _close_gap(self, slot: int) -> None:
        """Free a cache row; the last one moves into its place, so that used rows stay neighbours."""
        gap, last = self._slot_at.index(slot), len(self._slot_at) - 1
        moved = self._slot_at[last]
        if gap != last:
            self._cache.copy_row(last, gap, self._length[moved])
            self._slot_at[gap] = moved
        self._slot_at.pop()
        del self._length[slot]


def _lay_out(network: GPT2, for_batches: bool) -> None:
    """Choose how matrices lie in memory for products with few rows on a CPU; no value changes."""
    head = network.wte if network.lm_head is None else network.lm_head
    inner = [module for module in network.h.modules() if isinstance(module, torch.nn.Linear)]
    for module in (head, *inner) if for_batches else (head,):
        module.weight = torch.nn.Parameter(module.weight.t().contiguous().t(), requires_grad=False)
