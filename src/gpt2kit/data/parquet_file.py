"""One column of texts out of a Parquet file, a few rows at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.sources import Source
from gpt2kit.data.text_blocks import MENDED, CountBytes
from gpt2kit.errors import DataError, MissingExtra

DEFAULT_COLUMN = "text"
ROWS_A_BATCH = 16
# Otherwise pyarrow reads the whole column of a row group at once.
STREAMING = {"buffer_size": 1 << 20, "pre_buffer": False}


def read_column(source: Source, reading: ReadingConfig, count_bytes: CountBytes) -> Iterator[str]:
    """The texts of one column; empty and missing ones are left out.

    Raises:
        DataError: the file is damaged, the column is missing or no text, or a text is not UTF-8.
        MissingExtra: there is no pyarrow.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtra("reading Parquet", "data") from None
    try:
        with parquet.ParquetFile(source.path, **STREAMING) as file:
            column = _column_name(file.schema_arrow, source, reading)
            batches = file.iter_batches(ROWS_A_BATCH, columns=[column], use_threads=False)
            yield from _texts(batches, file.metadata.num_rows, source, reading, count_bytes)
    except ArrowException as error:
        raise DataError(f"{source}: damaged, or not Parquet: {error}; get the file again") from None


def _column_name(schema: Any, source: Source, reading: ReadingConfig) -> str:
    import pyarrow

    wanted, names = reading.column or DEFAULT_COLUMN, list(schema.names)
    if wanted not in names and wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        wanted = names[int(wanted) - 1]
    if wanted not in names:
        found = ", ".join(map(repr, names)) or "none"
        raise DataError(f"{source}: no column {wanted!r}; found {found:.200}; name one, or its number: --column")
    kind = schema.field(wanted).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    is_text = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)
    if not any(check(kind) for check in is_text):
        raise DataError(f"{source}: column {wanted!r} is {kind}, expected texts; name another: --column")
    return str(wanted)


def _texts(
    batches: Any, row_count: int, source: Source, reading: ReadingConfig, count_bytes: CountBytes
) -> Iterator[str]:
    import pyarrow

    row, counted, mended = 0, 0, 0
    for batch in batches:
        column = batch.column(0)
        column = column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
        # As bytes: Parquet does not promise that its texts are UTF-8.
        for content in column.cast(pyarrow.large_binary()).to_pylist():
            row += 1
            try:
                text = (content or b"").decode()
            except UnicodeDecodeError:
                if reading.invalid_utf8 == "refuse":
                    problem = "not UTF-8; take --invalid-utf8 replace for U+FFFD"
                    raise DataError(f"{source}, row {row}: {problem}") from None
                text = content.decode("utf-8", reading.invalid_utf8)
                mended += 1
            if text:
                yield text
        size = (source.size_bytes or 0) * row // row_count
        count_bytes(size - counted)
        counted = size
    if mended:
        warnings.warn(f"{source}: not UTF-8 in {mended:,} rows; {MENDED[reading.invalid_utf8]}", stacklevel=2)
