"""Which texts nshepperd's and gpt-2-simple's encode.py joined into one array; `combine` asks for the same in shards.

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
from gpt2kit.tokenizer.protocol import Tokenizer
from gpt2kit.tokenizer.vocabulary import END

START = "<|startoftext|>"


def chunk_pieces(
    sources: Iterable[Source], reading: ReadingConfig, count_bytes: CountBytes
) -> Iterator[Piece | Source]:
    """The text of each array as one document; where a source holds several documents, each counts as a file.

    What holds ids comes as it is when its turn comes, perhaps between two pieces of one document.
    """
    pending, found = 0, False  # characters; whether there was any
    for source in sources:
        if source.kind in ("npz", "shards"):
            yield source
            found = True
            continue
        for piece in _pieces(source, reading, count_bytes):
            assert isinstance(piece.content, str), "only .npz and shards hold ids"
            yield Piece(piece.content, False)
            pending += len(piece.content)
            if piece.ends_document and pending < reading.combine:
                yield Piece(reading.separator, False)
                pending += len(reading.separator)
            elif piece.ends_document:
                yield Piece("", True)
                pending, found = 0, True
    if pending:
        yield Piece("", True)
    elif not found:
        raise DataError("every file that was found is empty; there is no text")


def combined_pieces(
    sources: Iterable[Source], reading: ReadingConfig, tokenizer: Tokenizer, count_bytes: CountBytes
) -> Iterator[Piece]:
    """The same documents, and those that hold ids already: these wait until the one that is pending ends."""
    waiting: list[Source] = []
    pending = False
    for part in chunk_pieces(sources, reading, count_bytes):
        if isinstance(part, Source):
            waiting.append(part)
        else:
            yield part
            pending = not part.ends_document
        while waiting and not pending:
            yield from pieces_of(waiting.pop(0), reading, tokenizer, count_bytes)
    for source in waiting:
        yield from pieces_of(source, reading, tokenizer, count_bytes)


def _pieces(source: Source, reading: ReadingConfig, count_bytes: CountBytes) -> Iterator[Piece]:
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
    blocks = _with_newlines(read_blocks(source, reading, count_bytes))
    if source.kind == "text":
        yield from split_documents(blocks, reading.split_on)
        return
    lines = split_lines(blocks, "\n")
    _, header = next(read_rows([next(lines, "")], source), (1, []))
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
