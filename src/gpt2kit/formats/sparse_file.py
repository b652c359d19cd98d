"""A file in memory that takes no room where nothing was written: the layout of a large file, without its contents."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import BinaryIO

PAGE_BYTES = 4096


class SparseFile:
    """As much of a binary file as h5py asks for. What was never written reads as zeros."""

    def __init__(self) -> None:
        self._pages: defaultdict[int, bytearray] = defaultdict(lambda: bytearray(PAGE_BYTES))
        self._size = self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (self._size if whence == os.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        return b"".join(self._pages[page][part] for page, part in self._parts(count))

    def write(self, content: bytes) -> int:
        left = memoryview(content).cast("B")
        for page, part in self._parts(len(left)):
            self._pages[page][part], left = left[: part.stop - part.start], left[part.stop - part.start :]
        self._size = max(self._size, self._at)
        return len(content)

    def truncate(self, size: int) -> int:
        self._size = size
        return size

    def flush(self) -> None:
        """Nothing waits."""

    def copy_to(self, file: BinaryIO) -> None:
        """Write the same to a file on disk."""
        for page, content in sorted(self._pages.items()):
            file.seek(page * PAGE_BYTES)
            file.write(content)
        file.truncate(self._size)

    def _parts(self, count: int) -> Iterator[tuple[int, slice]]:
        while count:
            page, begin = divmod(self._at, PAGE_BYTES)
            end = min(begin + count, PAGE_BYTES)
            yield page, slice(begin, end)
            self._at += end - begin
            count -= end - begin
