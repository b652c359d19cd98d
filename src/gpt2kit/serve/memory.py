"""How much memory models may take where nobody says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

SHARE = 0.8  # of what is free; the rest is for what they remember of texts


def memory_for_models(system: Path = Path("/proc/meminfo"), container: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes; without limit where neither the system nor the container tells."""
    free = [bytes_ for bytes_ in (_free_in(system), _left_in(container)) if bytes_ is not None]
    return int(SHARE * min(free)) if free else sys.maxsize


def _free_in(system: Path) -> int | None:
    found = re.search(r"^MemAvailable: +(\d+) kB$", _text_of(system), re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _left_in(container: Path) -> int | None:
    """Of the limit that Docker and others set by cgroups, version 2."""
    limit, used = _text_of(container / "memory.max").strip(), _text_of(container / "memory.current").strip()
    return max(int(limit) - int(used), 0) if limit.isdecimal() and used.isdecimal() else None


def _text_of(file: Path) -> str:
    return file.read_text("ascii") if file.is_file() else ""
