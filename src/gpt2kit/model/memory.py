"""torch's several ways to say that memory ran out, in one error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gpt2kit.errors import OutOfMemory


@contextmanager
def naming_exhaustion(remedy: str) -> Iterator[None]:
    """Turn torch's out-of-memory errors inside the block into OutOfMemory, which ends with `remedy`."""
    try:
        yield
    except RuntimeError as error:
        # On the CPU torch raises a plain RuntimeError from its allocator.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        first_line = str(error).strip().splitlines()[0]
        raise OutOfMemory(f"out of memory; {remedy} ({first_line})") from None
