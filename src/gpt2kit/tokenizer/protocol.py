"""What every tokenizer can do, and what several do alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

import numpy as np

from gpt2kit.errors import RequestError


class Tokenizer(Protocol):
    """Text to token ids and back."""

    vocab_size: int
    end_id: int
    """The id that ends a text, and stands between texts: `<|endoftext|>`, WordPiece's [SEP], none of a character."""
    begin_id: int
    """The id that a text out of nothing follows: the same, or a line break where no token ends a text."""

    @property
    def ids(self) -> Collection[int]:
        """Those that stand for something: a vocabulary may have holes."""

    @property
    def sha256(self) -> str:
        """Of all that decides which ids a text gets: equal for equal vocabularies, whatever files they came in."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of `text`. `<|endoftext|>` written in the text stays text unless `special`."""

    def encode_joined(self, texts: Sequence[str]) -> np.ndarray:
        """Ids of all `texts`, uint32, the end token between one and the next; `<|endoftext|>` in them stays text."""

    def find_border(self, text: str, start: int) -> int | None:
        """The first place from `start` (at least 1) on where `text` can be cut without a change of its ids.

        What is a border stays one whatever text follows.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD."""

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes one token stands for: perhaps a part of a character."""


def ending_id(tokenizer: Tokenizer) -> int | None:
    """The id that ends a text, where there is a token that does."""
    return tokenizer.end_id if tokenizer.end_id < tokenizer.vocab_size else None


def joined(texts: Iterable[Sequence[int]], end_id: int) -> np.ndarray:
    """The ids of texts, uint32, `end_id` between one and the next."""
    ids = [id for text in texts for id in (*text, end_id)]
    return np.array(ids[:-1], np.uint32)


def unknown_id(token_id: int, vocab_size: int) -> RequestError:
    """The error of an id that stands for nothing."""
    return RequestError(f"token id {token_id} is not in the vocabulary, whose ids are 0 to {vocab_size - 1}")
