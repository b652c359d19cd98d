"""Which texts nshepperd's and gpt-2-simple's encode.py joined into one array.

The text of each file is added to what is pending. If that is now `combine` characters or longer, it becomes one array,
however long; else <|endoftext|> is added, as plain text, and the next file follows. What is pending at the end is the
last array. An .npz gives its own arrays at once. A .csv, by gpt-2-simple's rule, adds <|startoftext|>, the text,
<|endoftext|> and a newline for each row behind its first line, and never ends an array.
Source: load_dataset in nshepperd/gpt-2 and in gpt-2-simple 0.8.1.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.documents import Piece, column_number, pieces_of, read_rows, split_documents
from gpt2kit.data.sources import Source
from gpt2kit.data.text_blocks import CountBytes, read_blocks, split_lines
from gpt2kit.errors import DataError
from gpt2kit.tokenizer.vocabulary import END

START = "<|startoftext|>"


def chunk_pieces(
    sources: Iterable[Source], reading: ReadingConfig, combine: int, plan: list[int | Source], count_bytes: CountBytes
) -> Iterator[Piece]:
    """The text of each array as one document; where a source holds several documents, each counts as a file.

    `plan` is filled with the arrays in their order: the number of a document, or an .npz for the arrays in it.
    """
    pending = chunks = 0  # characters, arrays
    for source in sources:
        if source.kind == "npz":
            plan.append(source)
            count_bytes(source.size_bytes or 0)
            continue
        for piece in _pieces(source, reading, count_bytes):
            assert isinstance(piece.content, str), "only .npz and shards hold ids"
            yield Piece(piece.content, False)
            pending += len(piece.content)
            if piece.ends_document and pending < combine:
                yield Piece(reading.separator, False)
                pending += len(reading.separator)
            elif piece.ends_document:
                yield Piece("", True)
                plan.append(chunks)
                pending, chunks = 0, chunks + 1
    if pending:
        yield Piece("", True)
        plan.append(chunks)


def _pieces(source: Source, reading: ReadingConfig, count_bytes: CountBytes) -> Iterator[Piece]:
    if source.kind == "shards":
        raise DataError(f"{source}: is encoded already; for an .npz, name the text that it was made of")
    pieces = _as_python_reads_text(source, reading, count_bytes)
    first = next(pieces, None)
    if first is None and source.named:
        raise DataError(f"{source}: the file is empty")
    if first is None:
        warnings.warn(f"{source}: the file is empty; only a separator stands for it", stacklevel=2)
    yield first or Piece("", True)
    yield from pieces


def _as_python_reads_text(source: Source, reading: ReadingConfig, count_bytes: CountBytes) -> Iterator[Piece]:
    """As `open(path, "r")` gave it to the old programs: every line end is a newline, a byte order mark stays."""
    if source.kind not in ("text", "csv"):
        yield from pieces_of(source, reading, None, count_bytes)
        return
    blocks = _with_newlines(read_blocks(source, reading.invalid_utf8, count_bytes))
    if source.kind == "text":
        yield from split_documents(blocks, reading.split_on)
        return
    lines = split_lines(blocks, "\n")
    for _, header in read_rows([next(lines, "")], source):
        column = column_number(header, source, reading)
        for number, row in read_rows(lines, source):
            if column >= len(row):
                raise DataError(f"{source}, line {number + 1}: {len(row)} columns, the text is in column {column + 1}")
            yield Piece(f"{START}{row[column]}{END}\n", False)


def _with_newlines(blocks: Iterable[str]) -> Iterator[str]:
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    for block in blocks:
        yield decoder.decode(block)
    yield decoder.decode("", final=True)
