"""Pieces -> parcels -> ids in shards, on every core. Killed and called again it goes on where it was.

It works in a directory of its own:
    shards/        what has been made
    recipe.json    what it is made of: with another recipe, the work starts anew
    journal.json   how much of shards/ is whole and on disk, and the checksum of the parcels behind it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from gpt2kit.atomic import replace_bytes, sync_directory
from gpt2kit.data.documents import Piece
from gpt2kit.data.parcels import Encoded, Texts, encode_texts, pack
from gpt2kit.data.recipe import difference
from gpt2kit.data.shard_writer import ShardWriter, holds_at_least
from gpt2kit.data.shards import dtype_for
from gpt2kit.data.text_blocks import CountBytes
from gpt2kit.errors import DataError
from gpt2kit.json_object import parse_object
from gpt2kit.progress import Progress, Report
from gpt2kit.tokenizer.protocol import Tokenizer

SHARDS, RECIPE, JOURNAL = "shards", "recipe.json", "journal.json"
JOURNAL_TOKENS = 1 << 23  # between two entries: about 30 MB of English

Read = Callable[[CountBytes], Iterator[Piece]]
"""Begins to read from the start at each call."""


@dataclass(frozen=True)
class Journal:
    """How far the work has come."""

    parcels: int = 0
    text_bytes: int = 0
    read_bytes: int = 0
    """Of the inputs, as they lie on disk."""
    checksum: str = ""
    """Of all parcels so far."""
    tokens: int = 0
    documents: int = 0


def encode_pieces(
    read: Read,
    tokenizer: Tokenizer,
    place: Path,
    *,
    separator: Sequence[int],
    recipe: Mapping[str, Any],
    total_bytes: int | None,
    workers: int,
    report: Report,
) -> Journal:
    """Fill place/shards, going on from the journal that is found there. Behind each document stands `separator`."""
    parcels, journal = _begin(read, tokenizer, place, recipe, total_bytes, report)
    started, text_before = time.monotonic(), journal.text_bytes
    workers, now = workers or os.cpu_count() or 1, journal
    writer = ShardWriter(place / SHARDS, dtype_for(tokenizer.vocab_size), journal.tokens, journal.documents)

    def encode(parcel: Texts | Encoded) -> Encoded:
        return parcel if isinstance(parcel, Encoded) else encode_texts(parcel, tokenizer, separator)

    with writer, ThreadPoolExecutor(workers) as pool:
        for mark, encoded in _in_order(parcels, encode, pool, 2 * workers):
            writer.append(encoded.ids, encoded.ends)
            now = replace(mark, tokens=writer.tokens, documents=writer.documents)
            if now.tokens - journal.tokens >= JOURNAL_TOKENS:
                journal = _noted(now, writer, place)
            rate = (now.text_bytes - text_before) / 1e6 / max(time.monotonic() - started, 1e-9)
            figures = {"megabytes_per_second": rate, "tokens": now.tokens}
            report(Progress("encode", now.read_bytes, total_bytes, "byte", figures))
        if (read_bytes := parcels.mark().read_bytes) != now.read_bytes:  # what was counted behind the last parcel
            report(Progress("encode", read_bytes, total_bytes, "byte", {"tokens": now.tokens}))
        return _noted(now, writer, place)


def _begin(
    read: Read,
    tokenizer: Tokenizer,
    place: Path,
    recipe: Mapping[str, Any],
    total_bytes: int | None,
    report: Report,
) -> tuple[_ParcelStream, Journal]:
    """The parcels that are still to be done, and the journal of those that are."""
    parcels, journal = _ParcelStream(read, tokenizer), _journal_for(recipe, place, tokenizer)
    if journal and parcels.reach(journal, total_bytes, report):
        return parcels, journal
    if journal:
        problem = "not what they were when the work was interrupted"
        if total_bytes is None:
            raise DataError(f"the inputs are {problem}; give them once more to start anew")
        warnings.warn(f"the inputs are {problem}; starting anew", stacklevel=3)
    (place / JOURNAL).unlink(missing_ok=True)  # first, for it vouches for the rest
    shutil.rmtree(place / SHARDS, ignore_errors=True)
    (place / SHARDS).mkdir()
    replace_bytes(place / RECIPE, json.dumps(recipe).encode())
    return _ParcelStream(read, tokenizer), Journal()


class _ParcelStream:
    """Parcels, and how far they have come."""

    def __init__(self, read: Callable[[CountBytes], Iterator[Piece]], tokenizer: Tokenizer) -> None:
        self._parcels = pack(read(self._count_bytes), tokenizer.find_border)
        self._count, self._text_bytes, self._read_bytes = 0, 0, 0
        self._checksum = hashlib.blake2b(digest_size=16)

    def __iter__(self) -> Iterator[Texts | Encoded]:
        for parcel in self._parcels:
            if isinstance(parcel, Texts):
                content = b"\xff".join(text.encode() for text in parcel.texts)  # 255 is no part of UTF-8
                self._text_bytes += len(content) - len(parcel.texts) + 1
            else:
                content = parcel.ids.tobytes() + parcel.ends.tobytes()
            self._checksum.update(content)
            self._count += 1
            yield parcel

    def mark(self) -> Journal:
        """How far it is now."""
        return Journal(self._count, self._text_bytes, self._read_bytes, self._checksum.hexdigest())

    def reach(self, journal: Journal, total_bytes: int | None, report: Report) -> bool:
        """Go on to the place that `journal` notes. Returns False if what comes there is something else."""
        for _ in islice(self, journal.parcels):
            report(Progress("read again", self._read_bytes, total_bytes, "byte"))
        return self.mark() == replace(journal, tokens=0, documents=0)

    def _count_bytes(self, count: int) -> None:
        self._read_bytes += count


def _in_order(
    parcels: _ParcelStream, encode: Callable[[Texts | Encoded], Encoded], pool: ThreadPoolExecutor, most: int
) -> Iterator[tuple[Journal, Encoded]]:
    """Encode in the pool, at most `most` parcels ahead of what is taken."""
    waiting: deque[tuple[Journal, Future[Encoded]]] = deque()
    for parcel in parcels:
        waiting.append((parcels.mark(), pool.submit(encode, parcel)))
        if len(waiting) > most:
            mark, encoded = waiting.popleft()
            yield mark, encoded.result()
    yield from ((mark, encoded.result()) for mark, encoded in waiting)


def _journal_for(recipe: Mapping[str, Any], place: Path, tokenizer: Tokenizer) -> Journal | None:
    """The journal in `place`, if there is one, its work was this one, and the shards are there."""
    if not (place / JOURNAL).exists():
        return None
    if what := difference(parse_object((place / RECIPE).read_bytes(), place / RECIPE), recipe):
        warnings.warn(f"{what} since the work was interrupted; starting anew", stacklevel=4)
        return None
    journal = Journal(**parse_object((place / JOURNAL).read_bytes(), place / JOURNAL))
    dtype = dtype_for(tokenizer.vocab_size)
    return journal if holds_at_least(place / SHARDS, dtype, journal.tokens, journal.documents) else None


def _noted(journal: Journal, writer: ShardWriter, place: Path) -> Journal:
    writer.sync()
    sync_directory(place / SHARDS)
    replace_bytes(place / JOURNAL, json.dumps(asdict(journal)).encode())
    return journal
