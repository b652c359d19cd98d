"""The torch engine: the network of `model/gpt2.py` with a cache of keys and values, on any device torch knows.

Shape letters: N new positions of a step, of all rows in one line   D width
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import accumulate
from typing import Self

import numpy as np
import torch

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError
from gpt2kit.generate.cache_memory import CACHE_SHARE, free_for_cache, ids_that_fit
from gpt2kit.generate.engine import Row
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.kv_cache import CacheView, KeyValueCache, grows_on_demand
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
    """All rows of a step think in one pass through the weights, without padding, however many ids each brings."""

    exact_in_batches = False
    name = "torch"

    def __init__(
        self, checkpoint: Checkpoint, slots: int = 8, device: str = "cpu", memory_bytes: int | None = None
    ) -> None:
        """`memory_bytes` is what the cache may take: by default, half of what is free after loading the network.

        Where the cache grows on demand too little of it makes `capacity` smaller, elsewhere `slots`; a window remains.
        """
        network = to_network(checkpoint.config, checkpoint.tensors).requires_grad_(False).to(device).eval()
        if network.wte.weight.device.type == "cpu":
            _lay_out(network, for_batches=slots >= BATCH_SLOTS)
        self._think_with(network, slots, memory_bytes)

    @classmethod
    def around(cls, network: GPT2, slots: int) -> Self:
        """An engine that thinks with a network as it is, and leaves it so; put it in eval mode first."""
        engine = cls.__new__(cls)
        engine._think_with(network, slots)
        return engine

    def _think_with(self, network: GPT2, slots: int, memory_bytes: int | None = None) -> None:
        self.config: ModelConfig = network.config
        self.network = network
        self.device = network.wte.weight.device
        if memory_bytes is None:
            memory_bytes = _free_on(self.device)
        bytes_per_id = KeyValueCache.bytes_per_position(self.config)
        self.slots = (
            slots
            if grows_on_demand(self.device)
            else slots_that_fit(memory_bytes // bytes_per_id, self.config.window, slots)
        )
        self.capacity = ids_that_fit(memory_bytes, bytes_per_id, self.config.window, self.slots)
        self._cache = KeyValueCache(self.config, self.slots, self.device)
        self._length = [0] * self.slots  # slot -> ids in it

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> np.ndarray:
        """See Engine.step."""
        with naming_exhaustion("take fewer samples at once (batch_size)"):
            return self._step(rows)

    def _step(self, rows: Sequence[Row]) -> np.ndarray:
        for row in rows:
            assert 0 <= row.slot < self.slots, f"slot {row.slot} of {self.slots}"
            assert 0 < len(row.ids) <= self.config.window - self._length[row.slot], "a row must fit the window"
        if not rows:
            return np.empty((0, self.config.vocab_size), np.float32)
        line = sorted(rows, key=lambda row: row.slot)  # rows side by side in the cache are read together
        slots = [row.slot for row in line]
        view = CacheView(self._cache, slots, [self._length[slot] for slot in slots], [len(row.ids) for row in line])
        x_ND = self.network.hidden(torch.tensor([[id for row in line for id in row.ids]], device=self.device), view)[0]
        for row in line:
            self._length[row.slot] += len(row.ids)
        return self.network.head(x_ND[_wanted(rows, line)]).float().cpu().numpy()

    def truncate(self, slot: int, length: int) -> None:
        """See Engine.truncate."""
        if length == 0 < self._length[slot]:
            self._cache.forget_row(slot)
        self._length[slot] = min(length, self._length[slot])

    def share(self, source: int, target: int, length: int) -> None:
        """See Engine.share."""
        assert not self._length[target], f"slot {target} is not free"
        self._cache.copy_row(source, target, length)
        self._length[target] = length

    def close(self) -> None:
        """See Engine.close."""
        del self.network, self._cache


def slots_that_fit(positions: int, window: int, wanted: int) -> int:
    """How many of the wanted slots there is room for; at least one, which then meets the lack of memory itself."""
    return max(1, min(wanted, positions // window))


def _free_on(device: torch.device) -> int:
    """Bytes the cache may take on a device now; without limit where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * CACHE_SHARE)
    return free_for_cache() if device.type == "cpu" else sys.maxsize


def _wanted(rows: Sequence[Row], line: Sequence[Row]) -> list[int]:
    """Where the positions whose logits `rows` ask for stand among those of `line`, the same rows in another order."""
    ends = dict(zip((row.slot for row in line), accumulate(len(row.ids) for row in line), strict=True))
    counts = [{"none": 0, "last": 1, "all": len(row.ids)}[row.logits] for row in rows]
    return [place for row, n in zip(rows, counts, strict=True) for place in range(ends[row.slot] - n, ends[row.slot])]


def _lay_out(network: GPT2, for_batches: bool) -> None:
    """Choose how matrices lie in memory for products with few rows on a CPU; no value changes."""
    head = network.wte if network.lm_head is None else network.lm_head
    inner = [module for module in network.h.modules() if isinstance(module, torch.nn.Linear)]
    for module in (head, *inner) if for_batches else (head,):
        module.weight = torch.nn.Parameter(module.weight.t().contiguous().t(), requires_grad=False)
