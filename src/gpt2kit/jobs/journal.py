"""Finished texts on their way to a file: written as they come, so that a kill loses none; at the end in their order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from gpt2kit.atomic import replacing
from gpt2kit.errors import DataError, RunLocked

Place = tuple[int, int]


class Journal:
    """OUT.part: a line with the settings and the seed, then a line a text. For one process at a time."""

    def __init__(self, out: Path, settings: Mapping[str, Any], seed: int) -> None:
        """`settings` must be those the journal was begun with; `seed` counts only where it begins now."""
        self.out, self.path = out, out.with_name(f"{out.name}.part")
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
            self._file = self.path.open("a+b")
            self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        with suppress(OSError):  # Windows keeps a file that is locked
            Path(self._lock.lock_file).unlink()
        self._lock.release()

    def append(self, place: Place, line: Mapping[str, Any]) -> None:
        """Write down a finished text."""
        self.offsets[place] = self._file.seek(0, 2)
        self._write(line)

    def end(self) -> None:
        """All is written: put it in its order into the place of the output."""
        with replacing(self.out) as target:
            for place in sorted(self.offsets):
                self._file.seek(self.offsets[place])
                target.write(self._file.readline())
        self._file.close()
        self.path.unlink()

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break  # cut off by a kill
            self._note(line, whole)
            whole += len(line)
        self._file.truncate(whole)
        if not whole:
            self._write({"settings": self.settings, "seed": self.seed})

    def _note(self, line: bytes, offset: int) -> None:
        try:
            found = json.loads(line)
            if offset:
                self.offsets[found["index"], found["sample"]] = offset
                return
            begun, self.seed = found["settings"], found["seed"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.path}, byte {offset}: not a line that we wrote; delete the file") from None
        for name, now in self.settings.items():
            if begun.get(name) != now:
                raise DataError(
                    f"{self.path} was begun with {name} {begun.get(name)}, now it is {now}; "
                    "go on as it was begun, or delete it"
                )

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
