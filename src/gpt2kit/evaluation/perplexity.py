"""How well a model predicts a text: perplexity per token, bits per byte; every token counts once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt2kit.errors import DataError
from gpt2kit.generate.generator import Generator
from gpt2kit.generate.score import score_chunks
from gpt2kit.progress import Progress, Report, silent

LARGEST_EXPONENT = 709  # e to more than that is no float


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one text."""

    tokens: int
    bytes: int
    """UTF-8 bytes of the text."""
    nll: float
    """Sum of negative log-likelihoods, in nats."""

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood a token, in nats."""
        return self.nll / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss): depends on the vocabulary, so compare it only between models that share one."""
        return math.exp(self.loss) if self.loss < LARGEST_EXPONENT else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Comparable between all models."""
        return self.nll / math.log(2) / self.bytes


def evaluate_text(model: Generator, text: str, report: Report = silent) -> Evaluation:
    """Judge every token of `text` once; the first follows the end token, later ones all that the window still holds."""
    ids = [model.tokenizer.begin_id, *model.tokenizer.encode(text)]
    if len(ids) < 2:
        raise DataError("the text to evaluate is empty")
    nll, done = 0.0, 0
    for chunk in score_chunks(model.free_engine(), ids):
        nll -= float(chunk.logprobs_T.sum())
        done += chunk.ids_T.size
        so_far = Evaluation(done, len(text.encode()), nll)
        report(Progress("evaluate", done, len(ids) - 1, "token", {"perplexity": so_far.perplexity}))
    return so_far
