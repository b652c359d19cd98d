"""A hidden directory beside a target, for long work: left for the next time by a kill, gone after an error."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from gpt2kit.errors import ConfigError, DiskFull, Gpt2kitError, RunLocked

LOCK = "lock"
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def working_beside(target: Path) -> Iterator[Path]:
    """The directory .NAME.partial, for this process alone. Ends empty where the block ends, or a user's error ends it.

    Raises:
        ConfigError: nothing can be made there.
        RunLocked: another process works there.
        DiskFull: nothing is left of what was written.
    """
    place = target.with_name(f".{target.name}.partial")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be made there: {error.strerror}; name another place") from None
    lock = FileLock(place / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunLocked(f"{target}: another process is writing it; wait for it, or name another place") from None
    try:
        yield place
        _empty(place)
    except Gpt2kitError:
        _empty(place)
        raise
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        written = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        _empty(place)
        raise DiskFull(
            f"{target}: {error.strerror} after {written / 1e6:,.1f} MB were written (they are gone again), "
            f"{shutil.disk_usage(target.parent).free / 1e6:,.1f} MB are free; name a place with more"
        ) from None
    finally:
        if [path.name for path in place.iterdir()] == [LOCK]:
            shutil.rmtree(place, ignore_errors=True)  # while nobody else can be in it
        lock.release()
        with suppress(OSError):
            place.rmdir()  # where a file that is held cannot be removed


def is_taken(target: Path) -> bool:
    """Whether something is there already; an empty directory is not."""
    return any(target.iterdir()) if target.is_dir() else target.exists()


def _empty(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
