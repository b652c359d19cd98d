"""Which texts the old programs read, and how: nshepperd's encode.py and train.py, and gpt-2-simple."""

from __future__ import annotations

import os
from pathlib import Path

from gpt2kit.config.reading import InvalidUtf8, ReadingConfig
from gpt2kit.data.shards import is_shards


def old_inputs(place: str) -> list[str]:
    """What a file, directory or glob stands for: of a directory, whatever its files are called, all but hidden ones."""
    if not os.path.isdir(place) or is_shards(Path(place)):
        return [place]
    found = []
    for folder, below, files in os.walk(place):
        below[:] = sorted(name for name in below if not name.startswith("."))
        paths = (os.path.join(folder, name) for name in sorted(files) if not name.startswith("."))
        found += [path for path in paths if os.path.getsize(path)]
    return found or [place]


def old_reading(combine: int, *, encoding: str = "utf-8", invalid: InvalidUtf8 = "refuse") -> ReadingConfig:
    """Texts joined to `combine` characters; 0 or less joined none, as 1 does."""
    return ReadingConfig(combine=max(1, combine), encoding=encoding, invalid_utf8=invalid)


def npz_name(path: str) -> str:
    """The name that numpy gives to what is saved as `path`."""
    return path if path.endswith(".npz") else f"{path}.npz"
