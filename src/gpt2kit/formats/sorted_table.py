"""A sorted table: TensorFlow's copy of LevelDB's file of (key, value) pairs in the order of the keys' bytes.

Layout, little-endian (tensorflow/tsl/lib/io/format.cc, table_builder.cc, block_builder.cc):
    data blocks | metaindex block, empty | index block | footer
    block     contents | u8 compression (0 none, 1 snappy) | u32 masked CRC32C of both
    contents  entries | u32 place of each restart | u32 count of restarts
    entry     varint bytes shared with the key before | varint bytes of its own | varint value bytes | own bytes | value
    index     an entry a data block: a key from its last up to the next block's first -> its varint offset, varint size
    footer    varint offset and size of metaindex, then of index | zeros up to byte 40 | u64 magic
A restart shares nothing with the key before. Sizes leave out the 5 bytes behind the contents.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import cramjam
import google_crc32c
import numpy as np

from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.protobuf import read_varint, varint

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_BYTES, TRAILER_BYTES = 48, 5
PLAIN, SNAPPY = 0, 1
BLOCK_BYTES = 256 * 1024  # TensorFlow ends a block at this size
RESTART_EVERY = 16
# The largest index of a GPT-2 has 110 KB and 1,700 keys. Without limits, keys that share their beginnings unfold to
# terabytes.
MAX_TABLE_BYTES = MAX_BLOCK_BYTES = 16 * 2**20
MAX_ENTRIES, MAX_KEY_BYTES, MAX_VALUE_BYTES = 20_000, 1000, 1000

Pairs = Iterable[tuple[bytes, bytes]]


def masked_crc32c(content: bytes | np.ndarray) -> int:
    """The CRC32C of `content`, bytes or a read-only array, turned and shifted as LevelDB stores it."""
    crc: int = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def is_table(path: Path) -> bool:
    """Whether the file `path` ends as a sorted table does."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - len(MAGIC), 0))
        return size >= FOOTER_BYTES and file.read(len(MAGIC)) == MAGIC


def read_table(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Every (key, value) of the file, each block after its checksum was found right. Raises FormatError."""
    table = _Table(path)
    last_key, count, end = None, 0, 0
    for _, handle in table.entries(*table.index):
        try:
            offset, size, _ = _read_handle(handle, 0)
        except ValueError as error:
            raise FormatError(path, table.index[0], f"the index block is damaged: {error}") from None
        if offset < end:
            raise FormatError(path, offset, f"a block begins here; expected {end} or later, where the one before ends")
        end = offset + size
        for key, value in table.entries(offset, size):
            count += 1
            if last_key is not None and key <= last_key:
                raise FormatError(path, offset, f"key {key!r:.80} follows {last_key!r:.80}; expected rising keys")
            if count > MAX_ENTRIES:
                raise FormatError(path, offset, f"more than {MAX_ENTRIES} entries")
            last_key = key
            yield key, value


def table_bytes(pairs: Pairs, block_bytes: int = BLOCK_BYTES) -> bytes:
    """The file that holds `pairs`, whose keys must rise; the same bytes that TensorFlow writes."""
    content, block, index = bytearray(), _Block(RESTART_EVERY), _Block(1)
    for key, value in pairs:
        if block.size >= block_bytes:
            index.add(_separator(block.last_key, key), _append(content, block))
            block = _Block(RESTART_EVERY)
        assert key > block.last_key or not block.restarts, f"{key!r} follows {block.last_key!r}"
        block.add(key, value)
    index.add(_successor(block.last_key), _append(content, block))
    footer = _append(content, _Block(1)) + _append(content, index)
    return bytes(content) + footer.ljust(FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC


class _Table:
    """The whole file, and where its index block is."""

    def __init__(self, path: Path) -> None:
        self.path, size = path, path.stat().st_size
        if size < FOOTER_BYTES:
            raise TruncatedFile(
                path, size, f"too short for a TensorBundle index; expected {FOOTER_BYTES} bytes or more"
            )
        if size > MAX_TABLE_BYTES:
            raise FormatError(path, None, f"an index of {size} bytes; at most {MAX_TABLE_BYTES} are allowed")
        self.content, footer_at = path.read_bytes(), size - FOOTER_BYTES
        if not self.content.endswith(MAGIC):
            found = self.content[-len(MAGIC) :].hex()
            raise FormatError(
                path,
                size - len(MAGIC),
                f"not a TensorBundle index (bad magic): ends with {found}, expected {MAGIC.hex()}",
            )
        try:
            *_, at = _read_handle(self.content, footer_at)
            offset, index_bytes, _ = _read_handle(self.content, at)
        except ValueError as error:
            raise FormatError(path, footer_at, f"the footer is damaged: {error}") from None
        self.index = offset, index_bytes

    def entries(self, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of one block."""
        contents = self._contents(offset, size)
        try:
            yield from _entries(contents)
        except ValueError as error:
            raise FormatError(self.path, offset, f"the block here is damaged: {error}") from None

    def _contents(self, offset: int, size: int) -> bytes:
        end = offset + size
        if end + TRAILER_BYTES > len(self.content) - FOOTER_BYTES:
            raise FormatError(
                self.path, offset, f"a block of {size} bytes here would reach beyond the file's {len(self.content)}"
            )
        compression, stored = struct.unpack_from("<BI", self.content, end)
        if (found := masked_crc32c(self.content[offset : end + 1])) != stored:
            raise FormatError(
                self.path,
                offset,
                f"block crc mismatch: the checksum is {found:08x}, expected {stored:08x}; "
                "the file is damaged, copy it again",
            )
        contents = self.content[offset:end]
        if compression == PLAIN:
            return contents
        if compression == SNAPPY:
            return self._unpacked(contents, offset)
        raise FormatError(self.path, end, f"a block with compression {compression}; known are 0 (none) and 1 (snappy)")

    def _unpacked(self, packed: bytes, offset: int) -> bytes:
        """What snappy packed; it allocates what the first number claims, so that is looked at before."""
        try:
            claimed, _ = read_varint(packed, 0)
            if claimed > MAX_BLOCK_BYTES:
                raise ValueError(f"it claims {claimed} bytes unpacked, at most {MAX_BLOCK_BYTES} are allowed")
            return bytes(cramjam.snappy.decompress_raw(packed))
        except (ValueError, cramjam.DecompressionError) as error:
            raise FormatError(self.path, offset, f"the snappy block here is damaged: {error}") from None


def _read_handle(content: bytes, at: int) -> tuple[int, int, int]:
    """Offset and size of a block as stored at `at`, and where that ends."""
    offset, at = read_varint(content, at)
    size, at = read_varint(content, at)
    return offset, size, at


def _entries(contents: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(contents) < 4:
        raise ValueError(f"it has {len(contents)} bytes, expected 4 or more")
    (restarts,) = struct.unpack_from("<I", contents, len(contents) - 4)
    end = len(contents) - 4 - 4 * restarts
    if end < 0:
        raise ValueError(f"it claims {restarts} restarts in {len(contents)} bytes")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(contents, at)
        own_bytes, at = read_varint(contents, at)
        value_bytes, at = read_varint(contents, at)
        value_at = at + own_bytes
        if shared > len(key) or value_at + value_bytes > end:
            raise ValueError(f"an entry reaches {value_at + value_bytes - end} bytes beyond its end")
        if shared + own_bytes > MAX_KEY_BYTES or value_bytes > MAX_VALUE_BYTES:
            raise ValueError(
                f"an entry has a key of {shared + own_bytes} bytes and a value of {value_bytes}; "
                f"at most {MAX_KEY_BYTES} and {MAX_VALUE_BYTES} are allowed"
            )
        key = key[:shared] + contents[at:value_at]
        at = value_at + value_bytes
        yield key, contents[value_at:at]


class _Block:
    """A block as it grows."""

    def __init__(self, restart_every: int) -> None:
        self.restart_every, self.entries = restart_every, bytearray()
        self.restarts: list[int] = []
        self.last_key, self.count = b"", 0

    @property
    def size(self) -> int:
        return len(self.entries) + 4 * max(len(self.restarts), 1) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = _shared(self.last_key, key)
        if self.count % self.restart_every == 0:
            self.restarts.append(len(self.entries))
            shared = 0
        self.entries += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self.last_key, self.count = key, self.count + 1

    def finished(self) -> bytes:
        restarts = self.restarts or [0]
        return struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _append(content: bytearray, block: _Block) -> bytes:
    """Put the block at the end of the file. Returns its handle."""
    contents, offset = bytes(block.entries) + block.finished(), len(content)
    kind = bytes([PLAIN])
    content += contents + kind + struct.pack("<I", masked_crc32c(contents + kind))
    return varint(offset) + varint(len(contents))


def _shared(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _separator(last: bytes, following: bytes) -> bytes:
    """A short key from `last` up to, but not, `following`."""
    shared = _shared(last, following)
    if shared < len(last) and last[shared] < 0xFF and last[shared] + 1 < following[shared]:
        return last[:shared] + bytes([last[shared] + 1])
    return last


def _successor(last: bytes) -> bytes:
    """A short key from `last` on."""
    return next((last[:at] + bytes([byte + 1]) for at, byte in enumerate(last) if byte != 0xFF), last)
