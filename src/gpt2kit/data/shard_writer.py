"""Write shards a parcel at a time, so that what was written up to a known place can be kept and gone on with."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from gpt2kit.data.shards import ENDS, shard_name

SHARD_TOKENS = 2**27


class ShardWriter:
    """Appends to the shards in a directory, and knows how much is in them."""

    def __init__(self, directory: Path, dtype: np.dtype[Any], tokens: int = 0, documents: int = 0) -> None:
        """Go on behind the first `tokens` and `documents`; what stands behind them is cut off."""
        self.directory, self.dtype, self.tokens, self.documents = directory, dtype, tokens, documents
        for shard in directory.glob("*.bin"):
            if shard.stem.isdecimal() and int(shard.stem) > tokens // SHARD_TOKENS:
                shard.unlink()
        self._ends = _cut(directory / ENDS, documents * 8)
        self._shard = self._open_shard()

    def append(self, ids: np.ndarray, ends: np.ndarray) -> None:
        """Add ids, and the places between them, counted from the first, where documents end."""
        self._ends.write((ends + self.tokens).astype("<i8").tobytes())
        self.documents += ends.size
        while ids.size:
            fitting = ids[: SHARD_TOKENS - self.tokens % SHARD_TOKENS]
            self._shard.write(fitting.astype(self.dtype).tobytes())
            self.tokens += fitting.size
            ids = ids[fitting.size :]
            if self.tokens % SHARD_TOKENS == 0:
                self.sync()
                self._shard.close()
                self._shard = self._open_shard()

    def sync(self) -> None:
        """Make all of it survive a power cut."""
        for file in (self._shard, self._ends):
            file.flush()
            os.fsync(file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._shard.close()
        self._ends.close()
        if not self.tokens % SHARD_TOKENS:
            (self.directory / shard_name(self.tokens // SHARD_TOKENS)).unlink()

    def _open_shard(self) -> BinaryIO:
        number, within = divmod(self.tokens, SHARD_TOKENS)
        return _cut(self.directory / shard_name(number), within * self.dtype.itemsize)


def holds_at_least(directory: Path, dtype: np.dtype[Any], tokens: int, documents: int) -> bool:
    """Whether so much has been written to the shards in `directory`."""
    files = {shard_name(number): size * dtype.itemsize for number, size in enumerate(shard_sizes(tokens))}
    files[ENDS] = documents * 8
    return all((directory / name).is_file() and (directory / name).stat().st_size >= files[name] for name in files)


def shard_sizes(tokens: int) -> list[int]:
    """How many tokens each shard has, where there are `tokens` in all."""
    full, rest = divmod(tokens, SHARD_TOKENS)
    return [SHARD_TOKENS] * full + ([rest] if rest else [])


def _cut(path: Path, size_bytes: int) -> BinaryIO:
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size_bytes)
    file.seek(size_bytes)
    return file
