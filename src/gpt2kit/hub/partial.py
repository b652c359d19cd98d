"""A file on its way: .FILE.partial holds what has come, .FILE.partial.json what the server promised about the whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gpt2kit.atomic import replace_bytes, sync_directory
from gpt2kit.data.workplace import FULL_DISK
from gpt2kit.errors import DiskFull, FormatError
from gpt2kit.hub.promise import Promise
from gpt2kit.json_object import parse_object


class Partial:
    """The unfinished form of the file `path`. A kill at any instruction leaves what the next process can go on with."""

    def __init__(self, path: Path) -> None:
        self.target = path
        self.path = path.with_name(f".{path.name}.partial")
        self._notes = path.with_name(f".{path.name}.partial.json")
        if self.path.is_symlink():  # it may lead to somebody's file
            self.path.unlink()

    def size(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def promise(self) -> Promise:
        """What was promised when these bytes came."""
        try:
            return Promise.restored(parse_object(self._notes.read_bytes(), self._notes))
        except (FileNotFoundError, FormatError):
            return Promise()

    def begin(self, promise: Promise) -> None:
        """Forget the bytes that are here; those that come next belong to this promise."""
        with self._open(os.O_TRUNC):
            pass
        replace_bytes(self._notes, json.dumps(promise.stored()).encode())

    def adopt(self, promise: Promise) -> None:
        """Take the file under the final name, which is too short, for the bytes that are here."""
        replace_bytes(self._notes, json.dumps(promise.stored()).encode())
        os.replace(self.target, self.path)

    @contextmanager
    def appending(self) -> Iterator[BinaryIO]:
        """Open it for the bytes that come next. Raises DiskFull, and keeps what it holds."""
        try:
            with self._open(os.O_APPEND) as file:
                yield file
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            raise DiskFull(self._too_small(0)) from None

    def require_room(self, size: int) -> None:
        """Raise DiskFull unless a file of `size` bytes fits on the disk."""
        missing = size - self.size() - shutil.disk_usage(self.path.parent).free
        if missing > 0:
            raise DiskFull(self._too_small(missing))

    def finish(self) -> None:
        """Give it its final name."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.path, self.target)
        self._notes.unlink(missing_ok=True)
        sync_directory(self.target.parent)

    def discard(self) -> None:
        """Leave nothing of it."""
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def _open(self, flags: int) -> BinaryIO:
        descriptor = os.open(
            self.path,
            os.O_WRONLY | os.O_CREAT | flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0),
            0o666,
        )
        return os.fdopen(descriptor, "wb")

    def _too_small(self, missing: int) -> str:
        free = 0
        with suppress(OSError):
            free = shutil.disk_usage(self.path.parent).free
        lack = f", {missing / 1e6:,.1f} MB are missing" if missing else ""
        return (
            f"{self.target}: the disk is full: {free / 1e6:,.1f} MB are free{lack}; what has come "
            f"({self.size() / 1e6:,.1f} MB) is kept: make room and repeat the command, or name another --models-dir"
        )
