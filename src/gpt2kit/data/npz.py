"""Texts -> an .npz exactly as nshepperd's encode.py wrote it: encoded into shards first, then packed as a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
from gpt2kit.errors import ConfigError
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.tokenizer.protocol import Tokenizer

PACKED = "packed.npz"
IDS_A_BLOCK = 1 << 17


def encode_to_npz(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    path: Path,
    *,
    combine: int = 50000,
    reading: ReadingConfig | None = None,
    workers: int = 0,
    overwrite: bool = False,
    report: Report = silent,
) -> Journal:
    """Encode `inputs` into the arrays of an .npz, which appears when all is done. Raises as `encode_to_shards` does.

    `combine` is in characters; chunks.py says what it decides.
    """
    require(combine >= 1, f"combine must be 1 or more, got {combine}")
    require(workers >= 0, f"workers must be 0 or more, got {workers}")
    reading, sources = reading or ReadingConfig(), find_sources(inputs, leave_out=path)
    recipe = recipe_of(sources, reading, tokenizer)
    recipe["reading"]["combine"] = combine
    with working_beside(path) as place:
        if is_taken(path) and (path.is_dir() or not overwrite):
            raise ConfigError(f"{path}: exists already; replace a file with --overwrite, or name another place")
        plan: list[int | Source] = []

        def read(count_bytes: CountBytes) -> Iterator[Piece]:
            plan.clear()
            return chunk_pieces(sources, reading, combine, plan, count_bytes)

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
