"""Strings that a text must never hold: which token ids would complete one now. No logits, no model."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gpt2kit.errors import RequestError
from gpt2kit.tokenizer.protocol import Tokenizer


class BannedWords:
    """Watches the bytes of a text, so that it does not matter where tokens begin and end.

    A word may be cut between tokens in any way, even inside a character. The end token is a border between texts:
    no word reaches across it, and it is never banned.
    """

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str]) -> None:
        """`words` are plain text, none empty; upper and lower case differ."""
        spoken = {id: text for id in range(tokenizer.vocab_size) if (text := _bytes_of(tokenizer, id))}
        spoken.pop(tokenizer.end_id, None)
        wanted = [word.encode() for word in dict.fromkeys(words)]
        by_bytes = sorted(spoken, key=spoken.__getitem__)
        completing: defaultdict[bytes, list[np.ndarray]] = defaultdict(list)
        for word in wanted:
            for cut in range(1, len(word)):
                completing[word[:cut]].append(_beginning_with(word[cut:], by_bytes, spoken))
        self._bytes_by_id = spoken
        self._end_id = tokenizer.end_id
        self._longest_beginning = max(map(len, wanted), default=1) - 1
        holds_one = re.compile(b"|".join(map(re.escape, wanted)) or b"(?!)").search  # without words: in no text
        self._holding = np.array([id for id, text in spoken.items() if holds_one(text)], np.int64)
        self._completing = {beginning: np.concatenate(ids) for beginning, ids in completing.items()}

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        """Ids that may not come after `ids`, the whole sequence so far: with them the text would hold one more word.

        int64, in no order; an id may occur twice. A word that `ids` hold already is no matter.
        """
        tail = self._tail(ids)
        endings = (tail[-length:] for length in range(1, len(tail) + 1))
        return np.concatenate([self._holding, *(self._completing[end] for end in endings if end in self._completing)])

    def _tail(self, ids: Sequence[int]) -> bytes:
        """The last bytes of the text, as many as a word may have begun with."""
        tail = b""
        for id in reversed(ids):
            if id == self._end_id or len(tail) >= self._longest_beginning:
                break
            tail = self._bytes_by_id.get(id, b"") + tail
        return tail[-self._longest_beginning :]


def _bytes_of(tokenizer: Tokenizer, id: int) -> bytes:
    try:
        return tokenizer.bytes_of(id)
    except RequestError:  # padded vocabularies have ids without text
        return b""


def _beginning_with(rest: bytes, by_bytes: Sequence[int], spoken: dict[int, bytes]) -> np.ndarray:
    """The ids whose bytes begin with `rest`; `by_bytes` are all ids in order of their bytes."""

    def beginning(id: int) -> bytes:
        return spoken[id][: len(rest)]

    return np.array(
        by_bytes[bisect_left(by_bytes, rest, key=beginning) : bisect_right(by_bytes, rest, key=beginning)], np.int64
    )
