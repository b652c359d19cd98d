"""Strings that a text must never hold: which token ids would complete one now. No logits, no model."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gpt2kit.tokenizer.protocol import Tokenizer


class TokenTexts:
    """The bytes of every token that has any, but of the end token: by id, and in order."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spoken = {id: text for id in tokenizer.ids if (text := tokenizer.bytes_of(id))}
        spoken.pop(tokenizer.end_id, None)
        in_order = sorted(spoken, key=spoken.__getitem__)
        self.end_id, self.by_id = tokenizer.end_id, spoken
        self.in_order = [spoken[id] for id in in_order]
        self.ids_in_order = np.array(in_order, np.int64)
        self.longest = max(map(len, self.in_order), default=0)


class BannedWords:
    """Watches the bytes of a text, so that it does not matter where tokens begin and end.

    A word may be cut between tokens in any way, even inside a character. The end token is a border between texts:
    no word reaches across it, and it is never banned.
    """

    def __init__(self, tokens: TokenTexts, words: Sequence[str]) -> None:
        """`words` are plain text, none empty; upper and lower case differ."""
        texts, longest = tokens.in_order, tokens.longest
        wanted = [word.encode() for word in dict.fromkeys(words)]
        completing: defaultdict[bytes, set[tuple[int, int]]] = defaultdict(set)
        for word in wanted:
            for cut in range(max(1, len(word) - longest), len(word)):
                rest = word[cut:]
                # No text that begins with the rest comes later in order than the rest with the highest bytes behind it.
                first, end = bisect_left(texts, rest), bisect_right(texts, rest + b"\xff" * longest)
                if first < end:
                    completing[word[:cut]].add((first, end))
        short = [re.escape(word) for word in wanted if len(word) <= longest]
        holds_one = re.compile(b"|".join(short) or b"(?!)").search  # without words: in no text
        self._tokens = tokens
        self._holding = np.array([id for id, text in tokens.by_id.items() if holds_one(text)], np.int64)
        self._completing = dict(completing)  # a word's beginning: where in `in_order` those lie that bring the rest
        self._lengths = sorted(set(map(len, completing)))  # of the beginnings

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        """Ids that may not come after `ids`, the whole sequence so far: with them the text would hold one more word.

        int64, in no order; an id may occur twice. A word that `ids` hold already is no matter.
        """
        tail = self._tail(ids)
        endings = (tail[-length:] for length in self._lengths if length <= len(tail))
        places = set().union(*(self._completing[ending] for ending in endings if ending in self._completing))
        return np.concatenate([self._holding, *(self._tokens.ids_in_order[first:end] for first, end in places)])

    def _tail(self, ids: Sequence[int]) -> bytes:
        """The last bytes of the text, no fewer than the longest beginning of a word has, if there are so many."""
        longest, tail = max(self._lengths, default=0), b""
        for id in reversed(ids):
            if id == self._tokens.end_id or len(tail) >= longest:
                break
            tail = self._tokens.by_id.get(id, b"") + tail
        return tail
