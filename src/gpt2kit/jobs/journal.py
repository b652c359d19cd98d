"""Finished texts on their way to a file: written as they come, so that a kill loses none; at the end in their order.

OUT.part is a line with the settings and the seed, then a line a text. A last line that a kill cut off is written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from gpt2kit.atomic import replacing
from gpt2kit.data.workplace import FULL_DISK
from gpt2kit.errors import DataError, DiskFull, RunLocked

Place = tuple[int, int]
BEGINNING = b'{"settings": '


def part_of(out: Path) -> Path:
    """Where the journal of `out` lies."""
    return out.with_name(f"{out.name}.part")


def require_free(out: Path) -> None:
    """Raise DataError where anything is at `out`, be it a link that leads nowhere."""
    if os.path.lexists(out):
        raise DataError(f"{out} is there already and is not overwritten; name a file that does not exist yet")


class Journal:
    """The journal of one output, for one process at a time. One that holds no text is removed in the end."""

    def __init__(self, out: Path, settings: Mapping[str, Any], seed: int) -> None:
        """`settings` must be those the journal was begun with; `seed` counts only where it begins now."""
        self.out, self.path = out, part_of(out)
        self.settings, self.seed = json.loads(json.dumps(settings)), seed
        self.offsets: dict[Place, int] = {}
        """Where the line of (index, sample) begins."""
        self._lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise RunLocked(f"{self.path}: another process is writing it; wait for it, or name another file") from None
        try:
            require_free(self.out)  # the process that had the lock before may have ended its work
            whole = self._read() if self.path.exists() else 0
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(whole)
            if not whole:
                self._write({"settings": self.settings, "seed": self.seed})
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self.offsets:
            self.path.unlink(missing_ok=True)
        self._unlock()

    def append(self, place: Place, line: Mapping[str, Any]) -> None:
        """Write down a finished text. Raises DiskFull."""
        offset = self._file.seek(0, os.SEEK_END)
        self._write(line)
        self.offsets[place] = offset

    def end(self) -> None:
        """All is written: put it in its order into the place of the output. Raises DiskFull."""
        with self._naming_full_disk(), self.path.open("rb") as lines, replacing(self.out) as target:
            for place in sorted(self.offsets):
                lines.seek(self.offsets[place])
                target.write(lines.readline())
        self._file.close()
        self.path.unlink()

    def _unlock(self) -> None:
        with suppress(OSError):  # Windows keeps a file that is locked
            Path(self._lock.lock_file).unlink()
        self._lock.release()

    def _read(self) -> int:
        """Learn what is finished. Returns how many bytes that takes."""
        whole = 0
        with self.path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    self._note(line, whole)
                    whole += len(line)
                elif not whole and not BEGINNING.startswith(line[: len(BEGINNING)]):
                    raise self._foreign(0)
        return whole

    def _note(self, line: bytes, offset: int) -> None:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise self._foreign(offset) from None
        match found:
            case {"index": int(index), "sample": int(sample)} if offset:
                self.offsets[index, sample] = offset
            case {"settings": dict(begun), "seed": int(seed)} if not offset:
                self._require_same(begun)
                self.seed = seed
            case _:
                raise self._foreign(offset)

    def _require_same(self, begun: dict[str, Any]) -> None:
        for name in {**self.settings, **begun}:
            before, now = begun.get(name), self.settings.get(name)
            if before != now:
                raise DataError(
                    f"{self.path} was begun with {name} {before}, now it is {now}; go on as it was begun, or delete it"
                )

    def _foreign(self, offset: int) -> DataError:
        return DataError(
            f"{self.path}, byte {offset}: not a line of ours; move the file away, or write to another than {self.out}"
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        rest = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        with self._naming_full_disk():
            while rest:
                rest = rest[self._file.write(rest) :]

    @contextmanager
    def _naming_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            raise DiskFull(
                f"{self.out}: {error.strerror}; {len(self.offsets):,} finished texts are kept in {self.path}; "
                "make room, and the same command goes on from there"
            ) from None
