"""glibc told to keep the memory it is given back: a step frees and asks for the same gigabyte again and again."""

from __future__ import annotations

import ctypes
import sys

# malloc.h of glibc, and mallopt(3): no block in a mapping of its own, nothing ever trimmed, growth in large steps.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
SETTINGS = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 64 << 20}


def keep_freed_memory() -> bool:
    """Spare a training step its page faults, for the life of the process. False where there is no glibc to ask."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return False
    return all([mallopt(name, value) for name, value in SETTINGS.items()])
