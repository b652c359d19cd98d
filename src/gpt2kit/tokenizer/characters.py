"""One token a character: the vocabularies of nanoGPT's prepare.py, which it keeps as stoi and itos in meta.pkl.

Here they are a file of their own, characters.json: a list of characters, in the order of their ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from gpt2kit.errors import FormatError, RequestError
from gpt2kit.tokenizer.protocol import joined, unknown_id

CHARACTERS = "characters.json"
MOST_CHARACTERS = 0x110000  # that there are


def read_characters(files: Mapping[str, bytes], origin: str) -> Characters:
    """The vocabulary in `files` (name to content). Raises FormatError."""
    place = f"{origin}/{CHARACTERS}"
    try:
        found = json.loads(files[CHARACTERS])
    except (ValueError, RecursionError) as error:
        raise FormatError(place, None, f"not JSON: {error}") from None
    return Characters(checked(found, place))


def checked(found: Any, place: str) -> list[str]:
    """`found`, as it came from a file. Raises FormatError unless it lists characters, none of them twice."""
    if not isinstance(found, list) or not 0 < len(found) <= MOST_CHARACTERS:
        raise FormatError(place, None, "expected a list of characters, one or more")
    for id, character in enumerate(found):
        if not isinstance(character, str) or len(character) != 1 or "\ud800" <= character <= "\udfff":
            raise FormatError(place, None, f"token {id} is {character!r:.80}; expected one character")
    if len(set(found)) < len(found):
        twice = next(character for character in found if found.count(character) > 1)
        raise FormatError(place, None, f"{twice!r} stands for more than one token")
    return found


class Characters:
    """nanoGPT's tokenizer of characters. No token ends a text: `end_id` is one beyond them; a line break begins one."""

    def __init__(self, characters: Sequence[str]) -> None:
        """`characters` in the order of their ids."""
        self._characters = characters
        self._id_of = {character: id for id, character in enumerate(characters)}
        self.vocab_size = self.end_id = len(characters)
        self.begin_id = self._id_of.get("\n", 0)

    @property
    def ids(self) -> Collection[int]:
        """Those that stand for something: all."""
        return range(self.vocab_size)

    @cached_property
    def sha256(self) -> str:
        """Of all that decides which ids a text gets."""
        return hashlib.sha256(json.dumps(self._characters).encode()).hexdigest()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of `text`. Raises RequestError for a character that is not in the vocabulary."""
        try:
            return [self._id_of[character] for character in text]
        except KeyError as error:
            raise RequestError(
                f"the model knows {self.vocab_size:,} characters, and {error.args[0]!r} is none of them"
            ) from None

    def encode_joined(self, texts: Sequence[str]) -> np.ndarray:
        """Ids of all `texts`, uint32, `end_id` between one and the next."""
        return joined(map(self.encode, texts), self.end_id)

    def find_border(self, text: str, start: int) -> int | None:
        """The first place from `start` (at least 1) on where `text` can be cut: anywhere."""
        return start if start < len(text) else None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8")

    def bytes_of(self, token_id: int) -> bytes:
        """The character's bytes. Raises RequestError for ids beyond the vocabulary."""
        if not 0 <= int(token_id) < self.vocab_size:
            raise unknown_id(token_id, self.vocab_size)
        return self._characters[int(token_id)].encode()
