"""How much memory the keys and values of texts may take."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CACHE_SHARE = 0.5  # the other half of the free memory is for what a step computes


def free_for_cache(figures: Path = Path("/proc/meminfo")) -> int:
    """Bytes of main memory; without limit where the system does not say."""
    found = re.search(
        r"^MemAvailable: +(\d+) kB$", figures.read_text("ascii") if figures.exists() else "", re.MULTILINE
    )
    return int(int(found[1]) * 1024 * CACHE_SHARE) if found else sys.maxsize


def ids_that_fit(memory_bytes: int, bytes_per_id: int, window: int, slots: int) -> int:
    """How many ids all slots may hold together; one window at least, which then meets the lack of memory itself."""
    return max(window, min(memory_bytes // bytes_per_id, slots * window))
