"""How much memory models may take where nobody says, and how the process gives back what it no longer uses."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from pathlib import Path

SHARE = 0.8  # of what is free; the rest is for what they remember of texts
M_ARENA_MAX = -8  # glibc's malloc.h


def memory_for_models(system: Path = Path("/proc/meminfo"), container: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes; without limit where neither the system nor the container tells."""
    free = [bytes_ for bytes_ in (_free_in(system), _left_in(container)) if bytes_ is not None]
    return int(SHARE * min(free)) if free else sys.maxsize


def keep_one_heap() -> None:
    """Make threads to come share one heap: with one each, glibc's default, each keeps a reserve of its own."""
    if mallopt := _of_glibc("mallopt"):
        mallopt(M_ARENA_MAX, 1)


def give_back_unused() -> None:
    """Return the unused pages of the heap to the system; takes milliseconds."""
    if malloc_trim := _of_glibc("malloc_trim"):
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., object] | None:
    """A function that other systems, and other C libraries of Linux, do without."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _free_in(system: Path) -> int | None:
    found = re.search(r"^MemAvailable: +(\d+) kB$", _text_of(system), re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _left_in(container: Path) -> int | None:
    """Of the limit that Docker and others set by cgroups, version 2."""
    limit, used = _text_of(container / "memory.max").strip(), _text_of(container / "memory.current").strip()
    return max(int(limit) - int(used), 0) if limit.isdecimal() and used.isdecimal() else None


def _text_of(file: Path) -> str:
    return file.read_text("ascii") if file.is_file() else ""
