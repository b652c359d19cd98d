"""What every tokenizer can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Text to token ids and back."""

    vocab_size: int
    end_id: int
    """The id that stands between texts, `<|endoftext|>`."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of `text`. `<|endoftext|>` written in the text stays text unless `special`."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD."""

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes one token stands for: perhaps a part of a character."""
