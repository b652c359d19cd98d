"""Texts -> an .npz exactly as nshepperd's encode.py wrote it: encoded into shards first, then packed as a stream."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpt2kit.atomic import replace_bytes, sync_directory
from gpt2kit.config.limits import require
from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.chunks import chunk_pieces
from gpt2kit.data.documents import Piece
from gpt2kit.data.encode import manifest_of
from gpt2kit.data.npz_file import StoredArray, read_arrays, write_arrays
from gpt2kit.data.pipeline import SHARDS, Journal, encode_pieces
from gpt2kit.data.recipe import recipe_of, total_bytes
from gpt2kit.data.shards import MANIFEST, Shards, open_shards
from gpt2kit.data.sources import Source, find_sources
from gpt2kit.data.text_blocks import CountBytes
from gpt2kit.data.workplace import is_taken, working_beside
from gpt2kit.errors import ConfigError, DataError
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.tokenizer.protocol import Tokenizer

PACKED = "packed.npz"
IDS_A_BLOCK = 1 << 17
COMBINE = 50000  # encode.py's own


def encode_to_npz(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    path: Path,
    *,
    reading: ReadingConfig | None = None,
    workers: int = 0,
    overwrite: bool = False,
    report: Report = silent,
) -> Journal:
    """Encode `inputs` into the arrays of an .npz, which appears when all is done. Raises as `encode_to_shards` does."""
    require(workers >= 0, f"workers must be 0 or more, got {workers}")
    reading, sources = reading or ReadingConfig(), find_sources(inputs, leave_out=path)
    reading = replace(reading, combine=reading.combine or COMBINE)
    recipe = recipe_of(sources, reading, tokenizer)
    with working_beside(path) as place:
        if is_taken(path) and (path.is_dir() or not overwrite):
            raise ConfigError(f"{path}: exists already; replace a file with --overwrite, or name another place")
        plan: list[int | Source] = []

        def read(count_bytes: CountBytes) -> Iterator[Piece]:
            plan.clear()
            return _texts(chunk_pieces(sources, reading, count_bytes), plan, count_bytes)

        journal = encode_pieces(
            read,
            tokenizer,
            place,
            separator=[],  # the separators are part of the text
            recipe=recipe,
            total_bytes=total_bytes(sources),
            workers=workers,
            report=report,
        )
        replace_bytes(place / SHARDS / MANIFEST, manifest_of(journal, tokenizer, recipe))
        with (place / PACKED).open("wb") as file:
            write_arrays(file, _arrays(plan, open_shards(place / SHARDS), report))
            file.flush()
            os.fsync(file.fileno())
        os.replace(place / PACKED, path)
        sync_directory(path.parent)
    return journal


def _texts(parts: Iterable[Piece | Source], plan: list[int | Source], count_bytes: CountBytes) -> Iterator[Piece]:
    """What is to be encoded. `plan` is filled with the arrays in their order: the number of a document, or an .npz."""
    documents = 0
    for part in parts:
        if isinstance(part, Source):
            if part.kind == "shards":
                raise DataError(f"{part}: is encoded already; for an .npz, name the text that it was made of")
            plan.append(part)
            count_bytes(part.size_bytes or 0)
            continue
        if part.ends_document:
            plan.append(documents)
            documents += 1
        yield part


def _arrays(plan: Sequence[int | Source], shards: Shards, report: Report) -> Iterator[StoredArray]:
    starts = np.concatenate([[0], shards.ends])
    for done, entry in enumerate(plan, 1):
        if isinstance(entry, Source):
            yield from read_arrays(entry.path, shards.vocab_size)
        else:
            start, end = int(starts[entry]), int(starts[entry + 1])
            ranges = (np.arange(at, min(at + IDS_A_BLOCK, end)) for at in range(start, end, IDS_A_BLOCK))
            yield StoredArray(np.dtype(np.int64), end - start, map(shards.take, ranges))
        report(Progress("pack", done, len(plan), "array"))
