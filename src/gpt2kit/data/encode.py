"""Texts -> a directory of shards, which appears when all is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2kit.atomic import replace_bytes, sync_directory
from gpt2kit.config.limits import require
from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.chunks import combined_pieces
from gpt2kit.data.documents import Piece, read_pieces
from gpt2kit.data.pipeline import SHARDS, Journal, encode_pieces
from gpt2kit.data.recipe import difference, recipe_of, total_bytes
from gpt2kit.data.shard_writer import shard_sizes
from gpt2kit.data.shards import MANIFEST, Shards, is_shards, manifest_bytes, open_shards
from gpt2kit.data.sources import find_sources
from gpt2kit.data.text_blocks import CountBytes
from gpt2kit.data.workplace import is_taken, working_beside
from gpt2kit.errors import ConfigError
from gpt2kit.progress import Report, silent
from gpt2kit.tokenizer.protocol import Tokenizer
from gpt2kit.tokenizer.vocabulary import END

REPLACED = "replaced"


def encode_to_shards(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    directory: Path,
    *,
    reading: ReadingConfig | None = None,
    workers: int = 0,
    overwrite: bool = False,
    report: Report = silent,
) -> Shards:
    """Encode every document of `inputs` into `directory`, which appears when all is done; or open it as it is.

    Args:
        inputs: files, directories, globs, or "-" for standard input.
        tokenizer: one whose `encode_joined` threads may call side by side.
        directory: left as it is where it holds this very encoding already.
        reading: how to read, and what to put between documents.
        workers: threads that encode; 0 takes one a core.
        overwrite: replace `directory` where it holds another encoding.
        report: told how far it is, in bytes of the inputs.

    Raises:
        ConfigError: `directory` holds something else.
        RunLocked: another process is writing it.
        DataError, FormatError, MissingExtra, DiskFull: an input cannot be used, or the disk is full; nothing is left
            behind.
    """
    require(workers >= 0, f"workers must be 0 or more, got {workers}")
    reading, sources = reading or ReadingConfig(), find_sources(inputs, leave_out=directory)
    recipe = recipe_of(sources, reading, tokenizer)
    if found := _found(directory, recipe, overwrite):
        return found
    with working_beside(directory) as place:
        if found := _found(directory, recipe, overwrite):  # by a process that has just finished
            return found

        def read(count_bytes: CountBytes) -> Iterator[Piece]:
            read_all = combined_pieces if reading.combine else read_pieces
            return read_all(sources, reading, tokenizer, count_bytes)

        journal = encode_pieces(
            read,
            tokenizer,
            place,
            separator=_separator(reading, tokenizer),
            recipe=recipe,
            total_bytes=total_bytes(sources),
            workers=workers,
            report=report,
        )
        replace_bytes(place / SHARDS / MANIFEST, manifest_of(journal, tokenizer, recipe))
        _put(place, directory)
    return open_shards(directory)


def _separator(reading: ReadingConfig, tokenizer: Tokenizer) -> list[int]:
    """The ids behind each document."""
    if reading.combine:
        return []  # separators are part of the text
    return [tokenizer.begin_id] if reading.separator == END else tokenizer.encode(reading.separator)


def manifest_of(journal: Journal, tokenizer: Tokenizer, recipe: Mapping[str, Any]) -> bytes:
    """The manifest of what `journal` says has been made."""
    return manifest_bytes(
        tokens=journal.tokens,
        documents=journal.documents,
        text_bytes=journal.text_bytes,
        vocab_size=tokenizer.vocab_size,
        end_id=tokenizer.begin_id,
        tokenizer_sha256=tokenizer.sha256,
        shards=shard_sizes(journal.tokens),
        recipe=recipe,
    )


def _put(place: Path, directory: Path) -> None:
    """Let the finished shards take the place of what is in `directory`, if anything is."""
    shutil.rmtree(place / REPLACED, ignore_errors=True)
    if directory.exists():
        os.replace(directory, place / REPLACED)
    os.replace(place / SHARDS, directory)
    sync_directory(directory.parent)


def _found(directory: Path, recipe: Mapping[str, Any], overwrite: bool) -> Shards | None:
    """The shards in `directory`, if they were made by this recipe; None where there is room for them."""
    if not is_taken(directory):
        return None
    if not is_shards(directory):
        raise ConfigError(f"{directory}: holds something else than encoded text; name another place")
    shards = open_shards(directory)
    what = difference(shards.recipe, recipe)
    if not what and all(size is not None for _, size, _ in recipe["sources"]):
        return shards
    if overwrite:
        return None
    what = what or "standard input cannot be compared with it"
    raise ConfigError(
        f"{directory}: holds encoded text already, and {what}; replace it with --overwrite, or name another place"
    )
