"""Byte-level BPE, GPT-2's tokenizer, on tiktoken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property

import tiktoken

from gpt2kit.errors import RequestError
from gpt2kit.tokenizer.vocabulary import Vocabulary

# Splits as OpenAI's pattern in encoder.py does, but possessively. Source: tiktoken_ext/openai_public.py.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# tiktoken panics when it backtracks over a million spaces, so it gets its text in pieces. Both kinds of cut are borders
# that the pattern makes anyway: before a space that follows something else, and before the last space of a run.
PIECE_CHARACTERS = 1 << 18
SPACE = r"\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
CUT = re.compile(rf"(?<=[^{SPACE}])(?=[{SPACE}])|(?<=[{SPACE}])(?=[{SPACE}][^{SPACE}])")


class ByteLevelBPE:
    """GPT-2's tokenizer for any byte-level vocabulary. Equal to OpenAI's encoder.py, id for id.

    tiktoken joins two neighbours whenever their join is a token. That is BPE for merges that were learnt: each merge
    joins what the merges before it make of its text. For merges made up otherwise the two may differ.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocab_size = max(vocabulary.ids.values()) + 1
        self.end_id = vocabulary.end_id
        self._vocabulary = vocabulary

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

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes one token stands for: perhaps a part of a character."""
        token = self._bytes_by_id.get(int(token_id))
        if token is None:
            raise RequestError(
                f"token id {token_id} is not in the vocabulary, whose ids are 0 to {self.vocab_size - 1}"
            )
        return token

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        # tiktoken merges the pair of lowest id first, which is the order of the merges: `Vocabulary` made sure of it.
        return tiktoken.Encoding(
            "gpt2kit",
            pat_str=PATTERN,
            mergeable_ranks=self._vocabulary.mergeable(),
            special_tokens={},
        )

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._vocabulary.special, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    @cached_property
    def _bytes_by_id(self) -> dict[int, bytes]:
        return self._vocabulary.bytes_by_id()


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while cut := CUT.search(text, start + PIECE_CHARACTERS):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]
