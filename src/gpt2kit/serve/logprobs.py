"""Log-probabilities in OpenAI's shape: four lists side by side, a place for each token."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2kit.errors import RequestError
from gpt2kit.generate.scheduler import Token
from gpt2kit.tokenizer.protocol import Tokenizer

LOWEST = -9999.0  # in place of minus infinity, which JSON does not know; vLLM's choice


@dataclass(frozen=True)
class TokenNames:
    """How a token is written where it stands by itself."""

    tokenizer: Tokenizer
    as_ids: bool = False

    def __call__(self, id: int) -> str:
        """Its text; what is no whole text as `bytes:\\xe4`, which is OpenAI's way; or `token_id:123`."""
        if self.as_ids:
            return f"token_id:{id}"
        try:
            content = self.tokenizer.bytes_of(id)
        except RequestError:  # padding of the vocabulary
            return f"token_id:{id}"
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


class Offsets:
    """Where tokens begin, in characters that are whole before them."""

    def __init__(self, tokenizer: Tokenizer, start: int = 0) -> None:
        self._tokenizer, self._at = tokenizer, start
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def next(self, id: int) -> int:
        """The offset of the next token."""
        offset = self._at
        self._at += len(self._decoder.decode(self._tokenizer.bytes_of(id)))
        return offset


@dataclass(frozen=True)
class LogprobsStyle:
    """What was asked for beside the four lists."""

    names: TokenNames
    top: int
    ids: bool = False
    entropy: bool = False


class Logprobs:
    """The lists of one choice, or of one chunk of it."""

    def __init__(self, style: LogprobsStyle, offsets: Offsets) -> None:
        self._style, self._offsets = style, offsets
        self._lists = self._empty()

    def add(self, token: Token) -> None:
        """One more token; its own entry and the one among the likeliest are the same number."""
        logprob = max(token.logprob, LOWEST)
        top = {id: max(other, LOWEST) for id, other in token.top}
        top.setdefault(token.id, logprob)
        self._put(token.id, logprob, top, token.entropy)

    def add_first(self, id: int) -> None:
        """The first id of a prompt, of which nothing can be said."""
        self._put(id, None, None, None)

    def take(self) -> dict[str, list[object]]:
        """What was added since the last time."""
        told, self._lists = self._lists, self._empty()
        return told

    def _put(self, id: int, logprob: float | None, top: dict[int, float] | None, entropy: float | None) -> None:
        names = self._style.names
        named = None if top is None else {names(other): value for other, value in top.items()}
        entries: dict[str, object] = {
            "tokens": names(id),
            "token_logprobs": logprob,
            "top_logprobs": named,
            "text_offset": self._offsets.next(id),
            "token_ids": id,
            "top_token_ids": list(top or ()),
            "entropy": entropy,
        }
        for name, entry in self._lists.items():
            entry.append(entries[name])

    def _empty(self) -> dict[str, list[object]]:
        names = ["tokens", "token_logprobs", "top_logprobs", "text_offset"]
        names += ["token_ids", "top_token_ids"] if self._style.ids else []
        names += ["entropy"] if self._style.entropy else []
        return {name: [] for name in names}


def prompt_logprobs(ids: Sequence[int], judged: Sequence[Token], names: TokenNames) -> list[object]:
    """vLLM's shape: for each id of the prompt a dict of ids; None for the first."""
    entries: list[object] = [None]
    for token in judged:
        found = dict(token.top)
        found.setdefault(token.id, token.logprob)
        entries.append(
            {str(id): {"logprob": max(value, LOWEST), "decoded_token": names(id)} for id, value in found.items()}
        )
    return entries[: len(ids)]
