"""How much memory models may take where nobody says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

FIGURES = Path("/proc/meminfo")
SHARE = 0.8  # of what is free; the rest is for what they remember of texts


def memory_for_models() -> int:
    """Bytes; without limit where the system does not tell."""
    text = FIGURES.read_text("ascii") if FIGURES.exists() else ""
    found = re.search(r"^MemAvailable: +(\d+) kB$", text, re.MULTILINE)
    return int(int(found[1]) * 1024 * SHARE) if found else sys.maxsize
