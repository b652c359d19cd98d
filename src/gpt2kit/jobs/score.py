"""Judge every token of a text with a model: how likely it was, and what would have been likelier."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from gpt2kit.config.engine import EngineOptions
from gpt2kit.config.limits import require
from gpt2kit.errors import DataError, RequestError
from gpt2kit.evaluation.perplexity import Evaluation
from gpt2kit.generate.score import CHUNK, Scores, score_chunks
from gpt2kit.jobs.load import load
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.tokenizer.protocol import Tokenizer


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that might come next."""

    id: int
    content: bytes
    """Perhaps a part of a character; empty where the vocabulary has no text for the id (padding)."""
    logprob: float
    """Natural logarithm."""

    @property
    def probability(self) -> float:
        """As the model gives it, before any temperature or filter."""
        return math.exp(self.logprob)


@dataclass(frozen=True, slots=True)
class ScoredToken(Candidate):
    """The token that did come."""

    position: int
    """Its number in the text, from 1 on; at 0 stands the end token, which the first one follows."""
    rank: int
    """Its place among the vocabulary: 1 is the model's favourite."""
    top: tuple[Candidate, ...]
    """The likeliest tokens in its place, likeliest first, as many as were asked for."""

    @property
    def bits(self) -> float:
        """How surprising it was: binary digits, 0 for a certainty."""
        return -self.logprob / math.log(2)


@dataclass(frozen=True)
class Summary(Evaluation):
    """Figures of one model on one text, as far as it was read."""

    ranked_first: int
    """Tokens that were the model's favourites."""

    def plus(self, tokens: Sequence[ScoredToken]) -> Summary:
        """The figures with these tokens too."""
        return Summary(
            self.tokens + len(tokens),
            self.bytes + sum(len(token.content) for token in tokens),
            self.nll - sum(token.logprob for token in tokens),
            self.ranked_first + sum(token.rank == 1 for token in tokens),
        )


@dataclass(frozen=True)
class Chunk:
    """Some more tokens of the text, and the figures up to their last."""

    tokens: list[ScoredToken]
    summary: Summary


def score(
    model: str | Path,
    text: str,
    *,
    top: int = 0,
    report: Report = silent,
    **engine: Unpack[EngineOptions],
) -> Iterator[Chunk]:
    """Judge every token of `text` once, chunk by chunk; the first follows the end token, that is, a text begins.

    Args:
        top: how many alternatives to name with every token.
        report: hears of texts longer than one chunk only.
        The others are those of `load`.
    """
    require(top >= 0, f"top must be 0 or more, got {top}")
    with load(model, slots=1, **engine) as generator:
        ids = [generator.tokenizer.begin_id, *generator.tokenizer.encode(text)]
        if len(ids) < 2:
            raise DataError("the text to score is empty")
        total, summary = len(ids) - 1, Summary(0, 0, 0.0, 0)
        for scores in score_chunks(generator.engine, ids, top):
            tokens = list(_tokens(scores, generator.tokenizer, summary.tokens + 1))
            summary = summary.plus(tokens)
            if summary.tokens == total:  # of what WordPiece leaves out, spaces and more, no token tells
                summary = replace(summary, bytes=len(text.encode()))
            if total > CHUNK:
                report(Progress("score", summary.tokens, total, "token", {"perplexity": summary.perplexity}))
            yield Chunk(tokens, summary)


def _tokens(scores: Scores, tokenizer: Tokenizer, first: int) -> Iterator[ScoredToken]:
    columns = (scores.ids_T.tolist(), scores.logprobs_T.tolist(), scores.ranks_T.tolist())
    for place, (id, logprob, rank) in enumerate(zip(*columns, strict=True)):
        found = scores.top[place] if scores.top else ()
        top = tuple(Candidate(other, _content(tokenizer, other), likely) for other, likely in found)
        yield ScoredToken(id, tokenizer.bytes_of(id), logprob, first + place, rank, top)


def _content(tokenizer: Tokenizer, id: int) -> bytes:
    try:
        return tokenizer.bytes_of(id)
    except RequestError:
        return b""
