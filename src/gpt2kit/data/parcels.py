"""The stream of pieces -> parcels of about equal size, cut where the tokenizer finds a border, for the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpt2kit.data.documents import Piece
from gpt2kit.tokenizer.protocol import Tokenizer

PARCEL_CHARACTERS = 1 << 18


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts to encode; behind each but the last a document ends. The last is perhaps empty."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Ids, and the places in them where a document ends."""

    ids: np.ndarray
    ends: np.ndarray


def pack(pieces: Iterable[Piece], find_border: Callable[[str, int], int | None]) -> Iterator[Texts | Encoded]:
    """Ids come through one piece at a time; texts are joined and cut anew, so that all ids stay the same."""
    full: list[str] = []  # whole documents, or their last parts
    size, rest, searched = 0, "", 0
    for piece in pieces:
        if not isinstance(piece.content, str):
            if full:
                yield Texts((*full, ""))
                full, size = [], 0
            ends = [piece.content.size] if piece.ends_document else []
            yield Encoded(piece.content, np.array(ends, np.int64))
            continue
        rest += piece.content
        start = 0
        while border := find_border(rest, max(start + PARCEL_CHARACTERS - size, searched, start + 1)):
            yield Texts((*full, rest[start:border]))
            full, size, start = [], 0, border
        rest = rest[start:]
        searched = len(rest) - 1  # up to there, there is no border
        if piece.ends_document:
            full.append(rest)
            size += len(rest) + 1
            rest, searched = "", 0
            if size >= PARCEL_CHARACTERS:
                yield Texts((*full, ""))
                full, size = [], 0
    if full or rest:
        yield Texts((*full, rest))


def encode_texts(texts: Texts, tokenizer: Tokenizer, separator: Sequence[int]) -> Encoded:
    """Encode, and put the ids of `separator` behind every document."""
    joined = tokenizer.encode_joined(texts.texts)
    marks = np.flatnonzero(joined == tokenizer.end_id)
    assert marks.size == len(texts.texts) - 1, "an end token stands between two texts and nowhere else"
    if list(separator) == [tokenizer.end_id]:
        return Encoded(joined, marks + 1)
    before = marks - np.arange(marks.size)  # where the documents end once the marks are gone
    behind_each = np.tile(np.array(separator, joined.dtype), marks.size)
    ids = np.insert(np.delete(joined, marks), np.repeat(before, len(separator)), behind_each)
    return Encoded(ids, before + len(separator) * np.arange(1, marks.size + 1))
