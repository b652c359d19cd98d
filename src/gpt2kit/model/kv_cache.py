"""Keys and values of every position seen so far, for many sequences at once.

Shape letters: R rows kept   B rows of this step   T new positions   S all positions   H heads   K head width
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt2kit.config.model import ModelConfig


class KeyValueCache:
    """Room for `rows` sequences of up to `window` positions, every layer. Zeros until written: masked is not unread."""

    def __init__(self, config: ModelConfig, rows: int, device: torch.device) -> None:
        shape = (rows, config.heads, config.window, config.head_width)
        self.keys = [torch.zeros(shape, device=device) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, device=device) for _ in range(config.layers)]

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Make the first `length` positions of row `target` those of row `source`."""
        for stored_RHSK in (*self.keys, *self.values):
            stored_RHSK[target, :, :length] = stored_RHSK[source, :, :length]


class CacheView:
    """One step's view of the cache: `rows` grow by T positions each, from their own lengths."""

    def __init__(self, cache: KeyValueCache, rows: Sequence[int], lengths: Sequence[int], new: int) -> None:
        device = cache.keys[0].device
        first, longest = rows[0], max(lengths) + new
        self.cache, self.longest = cache, longest
        self.rows_B1 = torch.tensor(rows, device=device).unsqueeze(1)
        self.positions_BT = torch.tensor(lengths, device=device).unsqueeze(1) + torch.arange(new, device=device)
        # Neighbouring rows are read in place; any other set is copied together first.
        together = list(rows) == list(range(first, first + len(rows)))
        self.reading = slice(first, first + len(rows)) if together else self.rows_B1[:, 0]
        self.mask_B1TS = None
        if new > 1 or min(lengths) < max(lengths):
            self.mask_B1TS = torch.arange(longest, device=device) <= self.positions_BT[:, None, :, None]

    def layer(self, layer: int) -> LayerCache:
        """The part of one layer."""
        return LayerCache(self, self.cache.keys[layer], self.cache.values[layer])


class LayerCache:
    """The memory of one layer during one step."""

    def __init__(self, view: CacheView, k_RHSK: Tensor, v_RHSK: Tensor) -> None:
        self.view, self.k_RHSK, self.v_RHSK = view, k_RHSK, v_RHSK

    def append(self, k_BHTK: Tensor, v_BHTK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store T new positions. Returns all keys, all values, and who may look at whom; None is everyone."""
        view = self.view
        self.k_RHSK[view.rows_B1, :, view.positions_BT] = k_BHTK.transpose(1, 2)
        self.v_RHSK[view.rows_B1, :, view.positions_BT] = v_BHTK.transpose(1, 2)
        k_BHSK, v_BHSK = (stored[view.reading, :, : view.longest] for stored in (self.k_RHSK, self.v_RHSK))
        return k_BHSK, v_BHSK, view.mask_B1TS
