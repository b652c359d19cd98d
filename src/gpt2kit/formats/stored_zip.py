"""Zip archives whose entries are stored as they are, so that each is a range of bytes of the file.

Layout, little-endian throughout (PKWARE's APPNOTE.TXT 6.3):
    for each entry: "PK\\3\\4" header, 30 bytes | name | extra | the bytes
    directory, for each entry: "PK\\1\\2" header, 46 bytes | name | extra | comment
    "PK\\6\\6" end of a large directory, 56 bytes | "PK\\6\\7" where that lies, 20 bytes
    "PK\\5\\6" end, 22 bytes | comment
Sizes and offsets of 2**32 - 1 stand in the extra field 1, or in the end of the large directory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gpt2kit.errors import FormatError, TruncatedFile

MAX_DIRECTORY_BYTES = 2**22
MAX_COMMENT_BYTES = 2**16 - 1
FULL = 2**32 - 1
STORED, ENCRYPTED, LARGE = 0, 1, 1


def open_entries(path: Path, file: BinaryIO) -> dict[str, range]:
    """Where the bytes of each entry lie in the file `path`, open as `file`; every range is inside of it.

    Entries that are compressed or encrypted are left out. Raises FormatError where the archive is damaged.
    """
    size = file.seek(0, 2)
    begin, length = _directory(path, file, size)
    entries: dict[str, range] = {}
    for name, header, entry_bytes in _listed(path, _read(path, file, begin, length, "the zip directory"), begin):
        fixed = _read(path, file, header, 30, f"the entry {name!r:.80}")
        if fixed[:4] != b"PK\3\4":
            raise FormatError(path, header, f"no zip entry here; the directory promises {name!r:.80}")
        data = header + 30 + sum(struct.unpack("<HH", fixed[26:]))
        if data + entry_bytes > begin:
            raise FormatError(path, header, f"the entry {name!r:.80} of {entry_bytes} bytes reaches into the directory")
        if name in entries:
            raise FormatError(path, header, f"a second entry {name!r:.80}")
        entries[name] = range(data, data + entry_bytes)
    return entries


def _directory(path: Path, file: BinaryIO, size: int) -> tuple[int, int]:
    """Where the directory begins, and its length."""
    start = max(0, size - MAX_COMMENT_BYTES - 22)
    tail = _read(path, file, start, size - start, "the end of the zip archive")
    found = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - 18))
    if found < 0:
        raise TruncatedFile(path, size, "the zip archive has no end: the file is cut, or was not downloaded to the end")
    end = start + found
    length, begin = struct.unpack_from("<II", tail, found + 12)
    if FULL in (length, begin):
        locator = _read(path, file, max(0, end - 20), 20, "the end of the zip archive")
        if locator[:4] != b"PK\6\7":
            raise FormatError(path, end, "the end of a large zip archive is missing before this")
        (large,) = struct.unpack_from("<Q", locator, 8)
        record = _read(path, file, large, 56, "the end of the zip archive")
        if record[:4] != b"PK\6\6":
            raise FormatError(path, large, "the end of a large zip archive is missing here")
        length, begin = struct.unpack_from("<QQ", record, 40)
    if length > MAX_DIRECTORY_BYTES or begin + length > end:
        raise FormatError(path, end, f"claims a zip directory of {length} bytes at {begin}, which is not before this")
    return begin, length


def _listed(path: Path, directory: bytes, begin: int) -> Iterator[tuple[str, int, int]]:
    """Name, header's offset and size of each entry that is stored as it is."""
    at = 0
    while at < len(directory):
        place = begin + at
        if directory[at : at + 4] != b"PK\1\2" or at + 46 > len(directory):
            raise FormatError(path, place, "damaged zip directory: no entry here")
        flags, method = struct.unpack_from("<HH", directory, at + 8)
        packed, size, name_bytes, extra_bytes, comment_bytes = struct.unpack_from("<IIHHH", directory, at + 20)
        (header,) = struct.unpack_from("<I", directory, at + 42)
        name = directory[at + 46 : at + 46 + name_bytes].decode("utf-8", errors="replace")
        extra = directory[at + 46 + name_bytes : at + 46 + name_bytes + extra_bytes]
        at += 46 + name_bytes + extra_bytes + comment_bytes
        if at > len(directory):
            raise FormatError(path, place, "damaged zip directory: its last entry is longer than it")
        if method != STORED or flags & ENCRYPTED:
            continue
        size, packed, header = _large(path, place, extra, size, packed, header)
        if size != packed:
            raise FormatError(path, place, f"the zip entry {name!r:.80} has {packed} bytes of {size}")
        yield name, header, size


def _large(path: Path, place: int, extra: bytes, *numbers: int) -> list[int]:
    """`numbers`, with those that are full taken from the extra field, where they stand in this order."""
    at, wide = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == LARGE:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    needed = [number for number in numbers if number == FULL]
    if len(wide) < 8 * len(needed):
        raise FormatError(path, place, "a zip entry of more than 4 GB that does not tell its size")
    found = iter(struct.unpack_from(f"<{len(needed)}Q", wide))
    return [next(found) if number == FULL else number for number in numbers]


def _read(path: Path, file: BinaryIO, at: int, length: int, what: str) -> bytes:
    if at + length > file.seek(0, 2):
        raise TruncatedFile(path, at, f"ends inside {what}")
    file.seek(at)
    return file.read(length)
