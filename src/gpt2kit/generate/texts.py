"""Texts as they grow: prompts go into a scheduler, pieces of text come out of every step."""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import Gpt2kitError, RequestError, WeightMismatch
from gpt2kit.generate.banned_words import BannedWords, TokenTexts
from gpt2kit.generate.engine import Engine
from gpt2kit.generate.scheduler import (
    Bans,
    Event,
    Judged,
    Request,
    Scheduler,
    Ticket,
    Token,
    check_prompt,
    check_settings,
)
from gpt2kit.generate.text import TextStream
from gpt2kit.tokenizer.protocol import Tokenizer, ending_id


@dataclass(frozen=True)
class Completion:
    """One finished sample."""

    text: str
    """The continuation, without the prompt."""
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """What the model gave each id, before temperature and filters."""
    top: tuple[tuple[tuple[int, float], ...], ...]
    """The likeliest alternatives to each id, if they were asked for."""
    reason: EndReason
    seed: int


@dataclass(frozen=True)
class Piece:
    """Some new text of one sample; `completion` comes with the last."""

    sample: int
    """Which of the texts asked for, from 0."""
    text: str
    completion: Completion | None = None
    token: Token | None = None
    """What brought the text, if a token did."""
    judged: tuple[Token, ...] = ()
    """Ids of the prompt, where its own likelihood was asked for; they come before any text."""


EndReason = Literal["stop", "length"]
News = tuple[Ticket, Piece | Gpt2kitError]


def seeded(sampling: SamplingConfig) -> SamplingConfig:
    """With a seed: the one it has, or one drawn now."""
    return sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbits(32))


@dataclass(frozen=True, eq=False)
class Task:
    """What all texts of one call have in common; `Requests.task` makes it."""

    sampling: SamplingConfig
    """With a seed; what it banned is in `bans`."""
    stop: StopConfig
    bans: Bans | None
    """Banned ids, ids without text, and what would complete a banned word."""
    logprobs: int
    """How many alternatives to report with every token."""
    judge: int | None
    """Report the likelihood of the prompt's own ids too, each with so many alternatives."""
    entropy: bool
    """Whether to report with every token how undecided the model was."""
    keep_stop: bool
    """Whether the stop string that ends a text is part of it."""


class Requests:
    """Makes of what a caller wants what a scheduler takes, for one model; it need not be loaded."""

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
        """Raises WeightMismatch where the tokenizer has ids that the model has not."""
        self._config, self._tokenizer = checkpoint.config, tokenizer
        if tokenizer.vocab_size > checkpoint.config.vocab_size:
            raise WeightMismatch(
                f"{checkpoint.origin}: the tokenizer has {tokenizer.vocab_size} tokens, the model only "
                f"{checkpoint.config.vocab_size}; they belong to different models"
            )
        # Padded vocabularies have ids without text.
        self._unspeakable = frozenset(range(self._config.vocab_size)).difference(tokenizer.ids)

    def task(
        self,
        sampling: SamplingConfig,
        stop: StopConfig,
        *,
        logprobs: int = 0,
        judge: int | None = None,
        entropy: bool = False,
        keep_stop: bool = False,
    ) -> Task:
        """What is asked of all texts of one call, as this model can do it. Raises RequestError for wrong ids."""
        if self._config.architecture == "gpt2-ml" and sampling.chain == "standard":
            sampling = replace(sampling, chain="gpt2-ml")
        check_settings(sampling, stop, self._config)
        if nameless := self._unspeakable.intersection(sampling.forced_ids):
            raise RequestError(f"token id {min(nameless)} has no text, so no text can begin with it (forced_ids)")
        without_bans = seeded(replace(sampling, banned_ids=(), banned_words=()))
        return Task(without_bans, stop, self._bans(sampling), logprobs, judge, entropy, keep_stop)

    def request(self, task: Task, ids: Sequence[int], sample: int = 0) -> Request:
        """Sample number `sample` of the prompt `ids`; without ids, a text that begins. Raises RequestError."""
        end_id = ending_id(self._tokenizer)
        prompt = tuple(ids) or (self._tokenizer.begin_id,)
        check_prompt(prompt, task.stop, task.judge, self._config)
        return Request(
            prompt, task.sampling, task.stop, end_id, task.logprobs, sample, task.bans, task.judge, task.entropy
        )

    @cached_property
    def _token_texts(self) -> TokenTexts:
        return TokenTexts(self._tokenizer)

    def _bans(self, sampling: SamplingConfig) -> Bans | None:
        always = np.array(sorted({*sampling.banned_ids, *self._unspeakable}), np.int64)
        if sampling.banned_words:
            words = BannedWords(self._token_texts, sampling.banned_words)
            return lambda ids: np.concatenate([always, words(ids)])
        return (lambda ids: always) if always.size else None


class Texts:
    """All texts that one engine is writing. Not thread-safe: whoever owns the engine calls it."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.scheduler = Scheduler(engine)
        self._growing: dict[Ticket, _Growing] = {}

    def begin(self, task: Task, request: Request, number: int = 0, group: Hashable = None) -> Ticket:
        """Queue a text; its pieces carry `number`. Groups that wait start in turn."""
        stop = task.stop
        stream = TextStream(
            self._tokenizer,
            stop.stop,
            until_sentence=stop.until_sentence,
            min_tokens=stop.min_new_tokens,
            keep_stop=task.keep_stop,
        )
        ticket = self.scheduler.submit(request, group=group)
        self._growing[ticket] = _Growing(number, request, stream)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Write no more of this text; nothing more is heard of it."""
        if self._growing.pop(ticket, None):
            self.scheduler.cancel(ticket)

    def step(self) -> list[News]:
        """Think once for every text. Returns what there is to tell of each: new text, or why it can be no more.

        Whatever interrupts it ends all texts: some events may be lost, and a text with a hole is worse than none.
        """
        try:
            return [news for event in self.scheduler.step() for news in self._news(event)]
        except BaseException:
            for ticket in list(self._growing):
                self.cancel(ticket)
            raise

    def _news(self, event: Event) -> list[News]:
        ticket = event.ticket
        if not (text := self._growing.get(ticket)):
            return []
        if isinstance(event, Judged):
            return [(ticket, Piece(text.number, "", judged=event.tokens))]
        if isinstance(event, Token):
            piece = text.take(event)
            if not text.stream.stopped:
                return [(ticket, piece)]
            self.cancel(ticket)
            return [(ticket, piece), (ticket, text.last_piece("stop"))]
        del self._growing[ticket]
        if event.reason == "failed":
            return [(ticket, event.error or given_up())]
        return [(ticket, text.last_piece("length" if event.reason == "length" else "stop"))]


def given_up() -> Gpt2kitError:
    """Why a text ends that had no fault itself."""
    return Gpt2kitError("this text was given up, for thinking failed while it was being written")


class _Growing:
    """One text that is being written."""

    def __init__(self, number: int, request: Request, stream: TextStream) -> None:
        self.number, self.stream = number, stream
        self._seed = request.sampling.seed
        self._tokens: list[Token] = []
        self._text: list[str] = []

    def take(self, token: Token) -> Piece:
        self._tokens.append(token)
        self._text.append(self.stream.push(token.id))
        return Piece(self.number, self._text[-1], token=token)

    def last_piece(self, reason: EndReason) -> Piece:
        assert self._seed is not None, "a task has a seed"
        self._text.append(self.stream.finish())
        completion = Completion(
            text="".join(self._text),
            ids=tuple(token.id for token in self._tokens),
            logprobs=tuple(token.logprob for token in self._tokens),
            top=tuple(token.top for token in self._tokens if token.top),
            reason=reason,
            seed=self._seed,
        )
        return Piece(self.number, self._text[-1], completion)
