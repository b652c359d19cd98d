"""Byte-level BPE, GPT-2's tokenizer, on tiktoken."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import tiktoken

from gpt2kit.tokenizer.protocol import unknown_id
from gpt2kit.tokenizer.vocabulary import END

# Splits as OpenAI's pattern in encoder.py does, but possessively. Source: tiktoken_ext/openai_public.py.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# tiktoken panics when it backtracks over a million spaces, so it gets its text in pieces, cut at borders that the
# pattern makes anyway: before a space that follows something else, before the last space of a run, and, for texts
# without spaces, between a letter and a digit or mark (only some, on which all versions of Unicode agree).
PIECE_CHARACTERS = 1 << 18
SPACE = r"\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
LETTER = r"A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
MARK = r"!-@\[-`{-~\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
BORDER = re.compile(rf"(?<=[^{SPACE}])(?=[{SPACE}])|(?<=[{SPACE}])(?=[{SPACE}][^{SPACE}])|(?<=[{LETTER}])(?=[{MARK}])")


class Tokens(Protocol):
    """What the tokenizer asks of a checked vocabulary."""

    @property
    def special(self) -> Mapping[str, int]: ...
    @property
    def sha256(self) -> str: ...
    def mergeable(self) -> dict[bytes, int]:
        """The 256 bytes and every merged token, with their ids."""

    def bytes_by_id(self) -> dict[int, bytes]:
        """What each id stands for."""


class ByteLevelBPE:
    """GPT-2's tokenizer for any byte-level vocabulary. Equal to OpenAI's encoder.py, id for id.

    tiktoken joins two neighbours whenever their join is a token. That is BPE for merges that were learnt: each merge
    joins what the merges before it make of its text. For merges made up otherwise the two may differ.
    """

    def __init__(self, vocabulary: Tokens) -> None:
        self._bytes_by_id = vocabulary.bytes_by_id()
        self.vocab_size = max(self._bytes_by_id) + 1
        self.begin_id = self.end_id = vocabulary.special[END]
        self._vocabulary = vocabulary
        self._thread = threading.local()

    @property
    def sha256(self) -> str:
        """Of all that decides which ids a text gets: equal for equal vocabularies, whatever files they came in."""
        return self._vocabulary.sha256

    @property
    def ids(self) -> Collection[int]:
        """Those that stand for something."""
        return self._bytes_by_id.keys()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of `text`, in time linear in its length. `<|endoftext|>` stays text unless `special`."""
        ids: list[int] = []
        # Odd segments are special tokens.
        for number, segment in enumerate(self._special_pattern.split(text) if special else [text]):
            if number % 2:
                ids.append(self._vocabulary.special[segment])
                continue
            for piece in _pieces(segment):
                ids += self._encoding.encode_ordinary(piece)
        return ids

    def encode_joined(self, texts: Sequence[str]) -> np.ndarray:
        """Ids of all `texts`, uint32, the end token between one and the next; `<|endoftext|>` in them stays text.

        Threads encode side by side: tiktoken lets them, and each has its own encoder, for two that share one are no
        faster than one alone.
        """
        if any(END in text for text in texts):
            end = np.array([self.end_id], np.uint32)
            parts = [part for text in texts for part in (self._buffer(text, set()), end)]
            return np.concatenate(parts[:-1])
        return self._buffer(END.join(texts), {END})

    def find_border(self, text: str, start: int) -> int | None:
        """The first place from `start` (at least 1) on where `text` can be cut without a change of its ids."""
        return find_border(text, start)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes one token stands for: perhaps a part of a character."""
        token = self._bytes_by_id.get(int(token_id))
        if token is None:
            raise unknown_id(token_id, self.vocab_size)
        return token

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        return self._new_encoding()

    def _new_encoding(self) -> tiktoken.Encoding:
        # tiktoken merges the pair of lowest id first, the order of the merges: `read_vocabulary` made sure of it.
        return tiktoken.Encoding(
            "gpt2kit",
            pat_str=PATTERN,
            mergeable_ranks=self._vocabulary.mergeable(),
            special_tokens={END: self.end_id},
        )

    def _buffer(self, text: str, allowed: set[str]) -> np.ndarray:
        if not hasattr(self._thread, "encoding"):
            self._thread.encoding = self._new_encoding()
        encoding: tiktoken.Encoding = self._thread.encoding
        return encoding.encode_to_numpy(text, allowed_special=allowed, disallowed_special=())

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._vocabulary.special, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


def find_border(text: str, start: int) -> int | None:
    """The first place from `start` (at least 1) on where any byte-level BPE can cut `text` without a change of its ids.

    What is a border stays one whatever text follows.
    """
    found = BORDER.search(text, start)
    return found.start() if found else None


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while border := find_border(text, start + PIECE_CHARACTERS):
        yield text[start:border]
        start = border
    yield text[start:]
