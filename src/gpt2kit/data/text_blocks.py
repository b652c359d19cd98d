"""Bytes as they lie on disk -> blocks of text: decompressed, checked to be text, decoded."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.sources import STANDARD_INPUT, Source
from gpt2kit.errors import DataError, MissingExtra

BLOCK_BYTES = 1 << 18
# A zstandard block of 4 bytes may stand for 128 KiB: what comes out of this many bytes is 64 MiB at most.
ZSTANDARD_BYTES = 1 << 11

MENDED = {"replace": "U+FFFD stands there instead", "ignore": "what stood there is left out"}
"""What became of the faults of a text, by ReadingConfig.invalid_utf8."""
CountBytes = Callable[[int], None]
"""Told how many bytes of a file were read since the last time."""


def read_blocks(source: Source, reading: ReadingConfig, count_bytes: CountBytes) -> Iterator[str]:
    """The text of one file, a block at a time: line ends as they are, a byte order mark too.

    Raises:
        DataError: it cannot be read, is binary, damaged, or not in its encoding (with the offset, after decompression).
        MissingExtra: it is .zst, and there is no zstandard.
    """
    with naming_trouble(source), _opened(source.path) as file:
        yield from decode_blocks(_decompressed(file, source, count_bytes), str(source), reading)


def decode_blocks(blocks: Iterable[bytes], source: str, reading: ReadingConfig) -> Iterator[str]:
    """Bytes as text. Raises DataError, which names `source`, the encoding and the offset; or mends it and warns."""
    decoder, name = codecs.getincrementaldecoder(reading.encoding)(), reading.encoding.upper()
    zeros_are_text = b"\0" in "a".encode(reading.encoding)  # as in UTF-16
    offset, first_fault, fault_count = 0, 0, 0
    for block in _with_last(blocks):
        content, before = block or b"", decoder.getstate()
        if b"\0" in content and not zeros_are_text:
            place = offset + content.index(0)
            raise DataError(
                f"{source}: looks binary (a zero byte at {place}); expected {name} text; UTF-16 is read with "
                "gpt2 encode --encoding utf-16, and gpt2 finetune likewise"
            )
        offset += len(content)
        try:
            text = decoder.decode(content, final=block is None)
        except UnicodeDecodeError as error:
            place = offset - len(error.object) + error.start  # what it was given ends where this block ends
            if reading.invalid_utf8 == "refuse":
                raise DataError(
                    f"{source}: not {name} at byte {place} ({error.object[error.start]:02x}); save it as UTF-8 in an "
                    "editor, or convert it with iconv; gpt2 encode and gpt2 finetune also read other encodings, "
                    "--encoding NAME, and mend: --invalid-utf8 replace"
                ) from None
            first_fault = first_fault if fault_count else place
            text, faults = _mended(decoder, before, content, block is None, reading.invalid_utf8)
            fault_count += faults
        text.encode()  # raises for half a character, which UTF-7 can spell and UTF-8 cannot
        if text:
            yield text
    if fault_count:
        places = f"{fault_count:,} places, the first at byte {first_fault}"
        warnings.warn(f"{source}: not {name} in {places}; {MENDED[reading.invalid_utf8]}", stacklevel=2)


def without_byte_order_mark(blocks: Iterable[str]) -> Iterator[str]:
    """The blocks, less U+FEFF at their beginning."""
    blocks = iter(blocks)
    for first in blocks:
        if first := first.removeprefix("\ufeff"):
            yield first
        yield from blocks


def split_lines(blocks: Iterable[str], newline: str) -> Iterator[str]:
    """Lines with their ends, which are `newline`, or any of three kinds where that is ""."""
    pending: list[str] = []
    for block in blocks:
        pending.append(block)
        if any(end in block for end in newline or "\r\n"):
            # The last line may go on in the next block, and so may its end: \r, then \n.
            *lines, last = io.StringIO("".join(pending), newline=newline)
            yield from lines
            pending = [last]
    yield from io.StringIO("".join(pending), newline=newline)


@contextmanager
def naming_trouble(source: Source) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a DataError that names it."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{source}: damaged or cut off: {error}; get the file again") from None
    except UnicodeError as error:  # such as UTF-16 without a byte order mark
        raise DataError(
            f"{source}: cannot be decoded: {error}; name another encoding, such as utf-16-le: --encoding"
        ) from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == STANDARD_INPUT:
        yield sys.stdin.buffer
    else:
        with path.open("rb") as file:
            yield file


def _decompressed(file: IO[bytes], source: Source, count_bytes: CountBytes) -> Iterator[bytes]:
    raw = _Counted(file, count_bytes)
    if source.compression == ".zst":
        yield from _zstandard_blocks(raw)
        return
    stream: Any = gzip.GzipFile(fileobj=raw) if source.compression == ".gz" else raw  # type: ignore[call-overload]
    while block := stream.read(BLOCK_BYTES):
        yield block


def _zstandard_blocks(raw: _Counted) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("reading .zst", "data") from None
    frame, inside = zstandard.ZstdDecompressor().decompressobj(), False
    while block := raw.read(ZSTANDARD_BYTES):
        while block:
            try:
                yield frame.decompress(block)
            except zstandard.ZstdError as error:
                raise EOFError(error) from None
            block, inside = frame.unused_data, not frame.eof
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
    if inside:
        raise EOFError("the file ends inside a zstandard frame")


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], count_bytes: CountBytes) -> None:
        self.file, self.count_bytes = file, count_bytes

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.count_bytes(len(block))
        return block


def _with_last(blocks: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from blocks
    yield None


def _mended(
    decoder: codecs.IncrementalDecoder, before: tuple[bytes, int], content: bytes, final: bool, how: str
) -> tuple[str, int]:
    """The text less its faults, decoded anew from the state `before`, and how many faults it had."""
    texts = {}
    for decoder.errors in ("replace", "ignore"):
        decoder.setstate(before)
        texts[decoder.errors] = decoder.decode(content, final)
    decoder.errors = "strict"
    return texts[how], len(texts["replace"]) - len(texts["ignore"])
