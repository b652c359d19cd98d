"""Documents out of files of every kind, as a stream of pieces: no file, and no plain text, stands in memory whole."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.npz_file import read_arrays
from gpt2kit.data.parquet_file import read_column
from gpt2kit.data.shards import open_shards
from gpt2kit.data.sources import Source
from gpt2kit.data.text_blocks import (
    MENDED,
    CountBytes,
    decode_blocks,
    naming_trouble,
    read_blocks,
    split_lines,
    without_byte_order_mark,
)
from gpt2kit.errors import DataError
from gpt2kit.tokenizer.protocol import Tokenizer

LONGEST_CSV_FIELD = 1 << 24  # characters; csv takes four bytes for each
IDS_A_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one document."""

    content: str | np.ndarray
    """Text, or ids where they were stored as such."""
    ends_document: bool


def read_pieces(
    sources: Iterable[Source],
    reading: ReadingConfig,
    tokenizer: Tokenizer | None = None,
    count_bytes: CountBytes = lambda count: None,
) -> Iterator[Piece]:
    """Every document of every source, in order. Where there is no `tokenizer`, only texts may come.

    Raises:
        DataError: a file is empty, binary, damaged, not in its encoding, or lacks the field or column asked for.
        FormatError: an .npz or a shard is not what it claims, or was made with another vocabulary.
        MissingExtra: a file needs a package that is not installed.
    """
    found = False
    for source in sources:
        empty = True
        for piece in pieces_of(source, reading, tokenizer, count_bytes):
            found, empty = True, False
            yield piece
        if empty and source.named:
            raise DataError(f"{source}: the {'file' if source.can_be_read_again else 'text'} is empty")
        if empty:
            warnings.warn(f"{source}: skipped, the file is empty", stacklevel=2)
    if not found:
        raise DataError("every file that was found is empty; there is no text")


def read_text(path: Path) -> str:
    """The text of one plain file, perhaps compressed. Raises DataError as `read_pieces` does."""
    source = Source(path, "text", True, None, 0)
    text = "".join(without_byte_order_mark(read_blocks(source, ReadingConfig(), lambda count: None)))
    if not text:
        raise DataError(f"{path}: the file is empty")
    return text


def decode_text(content: bytes, source: str) -> str:
    """UTF-8 as text, without a byte order mark. Raises DataError, which names `source` and the offset."""
    return "".join(without_byte_order_mark(decode_blocks([content], source, ReadingConfig())))


def read_rows(lines: Iterable[str], source: Source) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank, each with the number of its last line."""
    csv.field_size_limit(LONGEST_CSV_FIELD)  # Python's own limit, 128 KiB, is shorter than many a text
    rows = csv.reader(lines)
    try:
        yield from ((rows.line_num, row) for row in rows if row)
    except csv.Error as error:
        raise DataError(f"{source}, line {rows.line_num}: not CSV: {error}; is a quote left open?") from None


def pieces_of(
    source: Source, reading: ReadingConfig, tokenizer: Tokenizer | None, count_bytes: CountBytes
) -> Iterator[Piece]:
    """Every document of one source; none where it is empty."""
    if source.kind in ("shards", "npz"):
        if tokenizer is None:
            raise DataError(f"{source}: holds ids, not text; name the text they were made of")
        yield from (_stored_documents if source.kind == "shards" else _stored_arrays)(source, tokenizer, count_bytes)
    elif source.kind == "parquet":
        with naming_trouble(source):
            yield from (Piece(text, True) for text in read_column(source, reading, count_bytes))
    else:
        blocks = without_byte_order_mark(read_blocks(source, reading, count_bytes))
        if source.kind == "text":
            yield from split_documents(blocks, reading.split_on)
        else:
            texts = _json_texts if source.kind == "jsonl" else _csv_texts
            yield from (Piece(text, True) for text in texts(blocks, source, reading) if text)


def split_documents(blocks: Iterable[str], mark: str) -> Iterator[Piece]:
    """Cut a text into documents wherever `mark` stands ("": nowhere); empty ones are left out."""
    held_back = len(mark) or 1  # of the last characters: what may be half a mark, or else the end of the document
    rest, begun = "", False
    for block in blocks:
        *whole, rest = (rest + block).split(mark) if mark else [rest + block]
        for text in whole:
            if text or begun:
                yield Piece(text, True)
            begun = False
        if len(rest) > held_back:
            yield Piece(rest[:-held_back], False)
            rest, begun = rest[-held_back:], True
    if rest:
        yield Piece(rest, True)


def _json_texts(blocks: Iterable[str], source: Source, reading: ReadingConfig) -> Iterator[str]:
    mended = 0
    for number, line in enumerate(split_lines(blocks, "\n"), 1):
        if line.isspace():
            continue
        try:
            text = json.loads(line)[reading.field]
            text.encode()
        except UnicodeEncodeError:  # JSON can spell half a character (\ud83d alone), which UTF-8 cannot
            if reading.invalid_utf8 == "refuse":
                problem = "half a character, such as \\ud83d alone; take --invalid-utf8 replace for U+FFFD"
                raise DataError(f"{source}, line {number}: {problem}") from None
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", reading.invalid_utf8)
            mended += 1
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            raise DataError(f"{source}, line {number}: {_fault_of(line, reading.field)}") from None
        yield text
    if mended:
        what = MENDED[reading.invalid_utf8]
        warnings.warn(f"{source}: half characters in {mended:,} lines; {what}", stacklevel=2)


def _fault_of(line: str, field: str) -> str:
    """Why this is no JSON line with a text."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}; expected one object a line"
    if not isinstance(entry, dict):
        return f"a JSON {type(entry).__name__}, expected an object"
    if field not in entry:
        found = ", ".join(map(repr, entry)) or "none"
        return f"no key {field!r}; found {found:.200}; name one: --field"
    return f"{field} is {entry[field]!r:.80}, expected a text"


def _csv_texts(blocks: Iterable[str], source: Source, reading: ReadingConfig) -> Iterator[str]:
    rows = read_rows(split_lines(blocks, ""), source)
    _, header = next(rows, (0, []))
    column = column_number(header, source, reading)
    for line, row in rows:
        if column >= len(row):
            raise DataError(f"{source}, line {line}: {len(row)} columns, but the text is in column {column + 1}")
        yield row[column]


def column_number(header: Sequence[str], source: Source, reading: ReadingConfig) -> int:
    """Which column holds the text, counted from 0."""
    if not reading.column:
        return 0
    if reading.column in header:
        return header.index(reading.column)
    if reading.column.isdecimal() and 1 <= int(reading.column) <= len(header):
        return int(reading.column) - 1
    found = ", ".join(map(repr, header)) or "none"
    raise DataError(f"{source}: no column {reading.column!r}; found {found:.200}; name one, or its number: --column")


def _stored_documents(source: Source, tokenizer: Tokenizer, count_bytes: CountBytes) -> Iterator[Piece]:
    shards = open_shards(source.path)
    if shards.tokenizer_sha256 != tokenizer.sha256:
        raise DataError(f"{source}: encoded with another vocabulary than the model's; encode its text again")
    start = 0
    for end in map(int, shards.ends):
        for first in range(start, end, IDS_A_PIECE):
            last = min(first + IDS_A_PIECE, end)
            yield Piece(shards.take(np.arange(first, last)), last == end)
            count_bytes((last - first) * shards.parts[0].itemsize)
        start = end


def _stored_arrays(source: Source, tokenizer: Tokenizer, count_bytes: CountBytes) -> Iterator[Piece]:
    with naming_trouble(source):
        for array in read_arrays(source.path, tokenizer.vocab_size):
            left = array.size
            for block in array.blocks:
                left -= block.size
                yield Piece(block, left == 0)
    count_bytes(source.size_bytes or 0)
