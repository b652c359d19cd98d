"""What pieces of text add up to, text by text, until it is told."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

from gpt2kit.generate.scheduler import Token
from gpt2kit.generate.texts import EndReason, Piece
from gpt2kit.serve.ordering import Order


@dataclass
class News:
    """What is new of one text."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    reason: EndReason | None = None
    first: bool = False
    """Whether the text begins here."""


class Choice:
    """One of the texts that a request asked for. `take` what arrives, `tell` what is new."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.judged: list[Token] = []
        """The ids of the prompt but the first, where they were to be judged."""
        self.count = 0
        """New tokens so far."""
        self.logprob = 0.0
        """Of all new tokens together."""
        self._news = News(first=True)

    def take(self, piece: Piece) -> None:
        """Add a piece."""
        self.judged += piece.judged
        self._news.text += piece.text
        if piece.token:
            self._news.tokens.append(piece.token)
            self.count += 1
            self.logprob += piece.token.logprob
        if piece.completion:
            self._news.reason = piece.completion.reason

    def tell(self) -> News:
        """What was added since the last time."""
        news, self._news = self._news, News()
        return news


def head(order: Order, prefix: str, kind: str) -> dict[str, object]:
    """What every answer of OpenAI's, and every chunk of it, begins with; the seed is ours."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": order.model.name,
        "system_fingerprint": order.model.fingerprint,
        "seed": order.task.sampling.seed,
    }


def usage(order: Order, new_tokens: int) -> dict[str, int]:
    """OpenAI's count of what was read and written."""
    read = sum(map(len, order.prompts))
    return {"prompt_tokens": read, "completion_tokens": new_tokens, "total_tokens": read + new_tokens}
