"""A model ready to write: prompt in, text out. What `gpt2kit.load` returns."""

from __future__ import annotations

import secrets
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import Gpt2kitError, RequestError, WeightMismatch
from gpt2kit.generate.engine import Engine
from gpt2kit.generate.scheduler import Done, Event, Request, Scheduler, Ticket, Token
from gpt2kit.generate.score import Scores, score
from gpt2kit.generate.text import TextStream
from gpt2kit.tokenizer.protocol import Tokenizer


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
    reason: Literal["stop", "length"]
    seed: int


@dataclass(frozen=True)
class Piece:
    """Some new text of one sample; `completion` comes with the last."""

    sample: int
    text: str
    completion: Completion | None = None


def in_turn(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same pieces, one sample after the other: the first unfinished one flows, later ones wait for their turn."""
    waiting: defaultdict[int, deque[Piece]] = defaultdict(deque)
    turn = 0
    for piece in pieces:
        waiting[piece.sample].append(piece)
        while waiting[turn]:
            yield (next_piece := waiting[turn].popleft())
            turn += next_piece.completion is not None


class Generator:
    """A model ready to write. Use it as a context manager, or call `close`, to free its memory early."""

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer, engine: Engine) -> None:
        if tokenizer.vocab_size > checkpoint.config.vocab_size:
            raise WeightMismatch(
                f"{checkpoint.origin}: the tokenizer has {tokenizer.vocab_size} tokens, the model only "
                f"{checkpoint.config.vocab_size}; they belong to different models"
            )
        self.checkpoint, self.tokenizer, self.engine = checkpoint, tokenizer, engine
        self._scheduler = Scheduler(engine)
        self._unspeakable = tuple(id for id in range(checkpoint.config.vocab_size) if not _has_text(tokenizer, id))
        self._inbox: dict[Ticket, deque[Event]] = {}  # events of every open iterator

    def generate(
        self,
        prompt: str | None = None,
        *,
        samples: int = 1,
        sampling: SamplingConfig | None = None,
        stop: StopConfig | None = None,
        logprobs: int = 0,
    ) -> list[Completion]:
        """Continue `prompt` `samples` times; without a prompt, start from nothing.

        Args:
            prompt: plain text; `<|endoftext|>` in it is text.
            samples: how many continuations; each has its own randomness.
            sampling: how tokens are chosen. Equal seeds give equal texts, whatever else runs beside.
            stop: when a text ends.
            logprobs: how many alternatives to report with every token.

        Raises:
            PromptTooLong: the prompt does not fit and `stop.overflow` forbids to cut it.
        """
        done = {
            piece.sample: piece.completion
            for piece in self.pieces(prompt, samples=samples, sampling=sampling, stop=stop, logprobs=logprobs)
            if piece.completion
        }
        return [done[sample] for sample in range(samples)]

    def stream(
        self, prompt: str | None = None, *, sampling: SamplingConfig | None = None, stop: StopConfig | None = None
    ) -> Iterator[str]:
        """Continue `prompt` once, piece by piece as it comes: whole characters only, no stop string ever shown."""
        for piece in self.pieces(prompt, sampling=sampling, stop=stop):
            if piece.text:
                yield piece.text

    def score(self, text: str, *, top: int = 0) -> Scores:
        """The log-probability of every token of `text`, the first one given only that a text begins."""
        if self._inbox:
            raise RequestError("a text is still being written; finish or close its iterator before scoring another")
        return score(self.engine, [self.tokenizer.end_id, *self.tokenizer.encode(text)], top)

    def pieces(
        self,
        prompt: str | None = None,
        *,
        samples: int = 1,
        sampling: SamplingConfig | None = None,
        stop: StopConfig | None = None,
        logprobs: int = 0,
    ) -> Iterator[Piece]:
        """As `generate`, but everything as it comes, the samples interleaved. Closing the iterator cancels the rest."""
        if samples < 1 or logprobs < 0:
            raise RequestError(f"{samples} samples and {logprobs} alternatives were asked; at least 1 and 0 are needed")
        sampling, stop = self._settled(sampling or SamplingConfig()), stop or StopConfig()
        assert sampling.seed is not None
        ids = tuple(self.tokenizer.encode(prompt or "")) or (self.tokenizer.end_id,)
        request = Request(ids, sampling, stop, self.tokenizer.end_id, logprobs)
        growing: dict[Ticket, _Growing] = {}
        try:
            for sample in range(samples):
                ticket = self._scheduler.submit(replace(request, sample=sample))
                growing[ticket], self._inbox[ticket] = _Growing(sample, TextStream(self.tokenizer, stop.stop)), deque()
            while growing:
                for ticket in list(growing):
                    yield from self._news(ticket, growing, sampling.seed)
                if growing:
                    self._step()
        finally:
            for ticket in growing:
                self._scheduler.cancel(ticket)
                del self._inbox[ticket]

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _step(self) -> None:
        """Think once for every open iterator, and leave each its own events."""
        for event in self._scheduler.step():
            if event.ticket in self._inbox:
                self._inbox[event.ticket].append(event)

    def _news(self, ticket: Ticket, growing: dict[Ticket, _Growing], seed: int) -> Iterator[Piece]:
        sample, inbox = growing[ticket], self._inbox[ticket]
        while inbox:
            event = inbox.popleft()
            if isinstance(event, Done):
                del growing[ticket], self._inbox[ticket]
                if event.reason == "failed":
                    raise Gpt2kitError("this text was given up, for thinking failed while it was being written")
                yield sample.last_piece("length" if event.reason == "length" else "stop", seed)
                return
            if sample.stream.stopped:
                continue  # chosen before the scheduler was told
            yield sample.take(event)
            if sample.stream.stopped:
                self._scheduler.cancel(ticket)

    def _settled(self, sampling: SamplingConfig) -> SamplingConfig:
        """With a seed, and without ids that the tokenizer has no text for (padded vocabularies)."""
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        return replace(sampling, seed=seed, banned_ids=sampling.banned_ids + self._unspeakable)


def _has_text(tokenizer: Tokenizer, token_id: int) -> bool:
    try:
        tokenizer.bytes_of(token_id)
    except RequestError:
        return False
    return True


class _Growing:
    """One sample that is being written."""

    def __init__(self, number: int, stream: TextStream) -> None:
        self.number, self.stream = number, stream
        self.tokens: list[Token] = []
        self.text: list[str] = []

    def take(self, token: Token) -> Piece:
        self.tokens.append(token)
        self.text.append(self.stream.push(token.id))
        return Piece(self.number, self.text[-1])

    def last_piece(self, reason: Literal["stop", "length"], seed: int) -> Piece:
        self.text.append(self.stream.finish())
        completion = Completion(
            text="".join(self.text),
            ids=tuple(token.id for token in self.tokens),
            logprobs=tuple(token.logprob for token in self.tokens),
            top=tuple(token.top for token in self.tokens if token.top),
            reason="stop" if self.stream.stopped else reason,
            seed=seed,
        )
        return Piece(self.number, self.text[-1], completion)
