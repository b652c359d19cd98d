"""Keys and values of every position seen so far, for many sequences at once.

Shape letters: R rows kept   N new positions of a step, all its rows in one line   B neighbouring rows with T new
positions each   S all positions of a row   H heads   K head width
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import OutOfMemory


class KeyValueCache:
    """Room for `rows` sequences of up to `window` positions, every layer. Zeros until written: masked is not unread.

    Where it grows on demand, a row takes memory position by position; on Linux, forgetting it gives that back.
    """

    def __init__(self, config: ModelConfig, rows: int, device: torch.device) -> None:
        shape = (rows, config.heads, config.window, config.head_width)
        self.device = device
        self._mapped: list[mmap.mmap] = []
        self.keys = [self._zeros(shape) for _ in range(config.layers)]
        self.values = [self._zeros(shape) for _ in range(config.layers)]

    @staticmethod
    def bytes_per_position(config: ModelConfig) -> int:
        """What one position of one row takes, all layers together."""
        return 2 * config.layers * config.heads * config.head_width * torch.float32.itemsize

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Make the first `length` positions of row `target` those of row `source`."""
        for stored_RHSK in (*self.keys, *self.values):
            stored_RHSK[target, :, :length] = stored_RHSK[source, :, :length]

    def forget_row(self, row: int) -> None:
        """Give the memory of a row back, where it is taken page by page; the row then reads as zeros."""
        for memory in self._mapped:
            row_bytes = len(memory) // self.keys[0].size(0)
            start = -(-row * row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            whole_pages = ((row + 1) * row_bytes - start) // mmap.PAGESIZE
            if sys.platform == "linux" and whole_pages > 0:
                memory.madvise(mmap.MADV_DONTNEED, start, whole_pages * mmap.PAGESIZE)

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        if sys.platform == "win32" or not grows_on_demand(self.device):
            return torch.zeros(shape, device=self.device)
        # torch.zeros writes to all of its memory; numpy's takes it on demand, but 2 MiB at a time.
        try:
            memory = mmap.mmap(-1, prod(shape) * torch.float32.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise OutOfMemory(f"out of memory; take fewer samples at once (batch_size) ({error})") from None
        self._mapped.append(memory)
        return torch.frombuffer(memory, dtype=torch.float32).view(shape)


def grows_on_demand(device: torch.device) -> bool:
    """Whether a cache there takes only the memory it has written to, instead of all at once."""
    return device.type == "cpu" and sys.platform != "win32"


class CacheView:
    """One step's view of the cache: `rows`, in rising order, grow from `lengths` by `news` positions each.

    The new positions of all rows stand in one line, row after row.
    """

    def __init__(self, cache: KeyValueCache, rows: Sequence[int], lengths: Sequence[int], news: Sequence[int]) -> None:
        self.cache = cache
        grown = list(zip(rows, lengths, news, strict=True))
        places = [place for _, length, new in grown for place in range(length, length + new)]
        self.positions_N = torch.tensor(places, device=cache.device)
        self.rows_N = torch.tensor([row for row, _, new in grown for _ in range(new)], device=cache.device)
        self.neighbours = list(self._neighbours(grown))

    def layer(self, layer: int) -> LayerCache:
        """The part of one layer."""
        return LayerCache(self, self.cache.keys[layer], self.cache.values[layer])

    def _neighbours(self, grown: Sequence[tuple[int, int, int]]) -> Iterator[Neighbours]:
        start = 0
        for (_, new), run in groupby(enumerate(grown), key=lambda at: (at[1][0] - at[0], at[1][2])):
            rows, lengths, _ = zip(*(row for _, row in run), strict=True)
            line = slice(start, start + new * len(rows))
            yield Neighbours(rows[0], lengths, line, self.positions_N[line].view(-1, new))
            start = line.stop


class Neighbours:
    """Rows side by side in the cache with equally many new positions: they are read in place, all at once."""

    def __init__(self, first: int, lengths: Sequence[int], line: slice, positions_BT: Tensor) -> None:
        self.line, self.shape_BT = line, positions_BT.shape
        rows, new = self.shape_BT
        longest = max(lengths) + new
        self.read = slice(first, first + rows), slice(None), slice(longest)
        self.mask_B1TS = None  # everyone sees everything
        if new > 1 or min(lengths) < max(lengths):
            self.mask_B1TS = torch.arange(longest, device=positions_BT.device) <= positions_BT[:, None, :, None]

    def attend(self, q_NHK: Tensor, k_RHSK: Tensor, v_RHSK: Tensor, scale: float) -> Tensor:
        """What the new positions of these rows see: their own row, up to themselves."""
        y_BHTK = F.scaled_dot_product_attention(
            q_NHK[self.line].view(*self.shape_BT, *q_NHK.shape[1:]).transpose(1, 2),
            k_RHSK[self.read],
            v_RHSK[self.read],
            attn_mask=self.mask_B1TS,
            scale=scale,
        )
        return y_BHTK.transpose(1, 2).flatten(0, 1)


class LayerCache:
    """The memory of one layer during one step."""

    def __init__(self, view: CacheView, k_RHSK: Tensor, v_RHSK: Tensor) -> None:
        self.view, self.k_RHSK, self.v_RHSK = view, k_RHSK, v_RHSK

    def attend(self, q_1HNK: Tensor, k_1HNK: Tensor, v_1HNK: Tensor, scale: float) -> Tensor:
        """Store the new positions; then each looks at those of its own row, up to itself."""
        view = self.view
        q_NHK, k_NHK, v_NHK = (z_1HNK[0].transpose(0, 1) for z_1HNK in (q_1HNK, k_1HNK, v_1HNK))
        self.k_RHSK[view.rows_N, :, view.positions_N] = k_NHK
        self.v_RHSK[view.rows_N, :, view.positions_N] = v_NHK
        parts = [rows.attend(q_NHK, self.k_RHSK, self.v_RHSK, scale) for rows in view.neighbours]
        y_NHK = parts[0] if len(parts) == 1 else torch.cat(parts)
        return y_NHK.transpose(0, 1)[None]
