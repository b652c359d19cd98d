"""A checked vocabulary in arrays that a file can hold as they are: opened again, no word of it is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gpt2kit.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class FlatVocabulary:
    """What `ByteLevelBPE` asks of a vocabulary. Tokens that merges make come first, in the order of their ids."""

    text: np.ndarray
    """What all tokens stand for, one behind the other, uint8."""
    ends: np.ndarray
    """Where each ends, uint32."""
    token_ids: np.ndarray
    """The id of each, uint32."""
    merged: int
    """How many the merges make, the 256 bytes among them."""
    special: Mapping[str, int]
    sha256: str

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> FlatVocabulary:
        """The same, flat."""
        merged = {id: token for token, id in vocabulary.mergeable().items()}
        others = [(id, token) for id, token in vocabulary.bytes_by_id().items() if merged.get(id) != token]
        ids, tokens = zip(*merged.items(), *others, strict=True)
        return cls(
            np.frombuffer(b"".join(tokens), np.uint8),
            np.cumsum([len(token) for token in tokens], dtype=np.uint32),
            np.array(ids, np.uint32),
            len(merged),
            vocabulary.special,
            vocabulary.sha256,
        )

    def mergeable(self) -> dict[bytes, int]:
        """The 256 bytes and every merged token, with their ids."""
        return dict(zip(self._tokens(self.merged), self.token_ids.tolist(), strict=False))

    def bytes_by_id(self) -> dict[int, bytes]:
        """What each id stands for."""
        return dict(zip(self.token_ids.tolist(), self._tokens(len(self.ends)), strict=True))

    def _tokens(self, count: int) -> list[bytes]:
        text = self.text.tobytes()
        return [text[begin:end] for begin, end in pairwise([0, *self.ends[:count].tolist()])]
