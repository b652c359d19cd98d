"""A model ready to write: prompt in, text out. What `gpt2kit.load` returns."""

from __future__ import annotations

import secrets
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from types import TracebackType
from typing import Literal, Self

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import Gpt2kitError, RequestError, WeightMismatch
from gpt2kit.generate.banned_words import BannedWords
from gpt2kit.generate.engine import Engine
from gpt2kit.generate.scheduler import Done, Event, Request, Scheduler, Ticket, Token
from gpt2kit.generate.score import Scores, score
from gpt2kit.generate.text import TextStream
from gpt2kit.tokenizer.protocol import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to continue, and which of its samples to write."""

    text: str | None = None
    """Plain text: `<|endoftext|>` in it is text. None starts from nothing."""
    sample: int = 0
    """Each sample of one text has its own randomness."""


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
    """Which of the texts asked for, from 0."""
    text: str
    completion: Completion | None = None


def seeded(sampling: SamplingConfig) -> SamplingConfig:
    """With a seed: the one it has, or one drawn now."""
    return sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbits(32))


def in_turn(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same pieces, one sample after the other: the first unfinished one flows, later ones wait for their turn."""
    waiting: defaultdict[int, deque[Piece]] = defaultdict(deque)
    turn = 0
    for piece in pieces:
        waiting[piece.sample].append(piece)
        while waiting[turn]:
            yield (next_piece := waiting[turn].popleft())
            if next_piece.completion:
                del waiting[turn]
                turn += 1


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
        self._closed = False

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
        pieces = self.pieces(prompt, samples=samples, sampling=sampling, stop=stop, logprobs=logprobs)
        done = {piece.sample: piece.completion for piece in pieces if piece.completion}
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
        return score(self.free_engine(), [self.tokenizer.end_id, *self.tokenizer.encode(text)], top)

    def free_engine(self) -> Engine:
        """The engine with all slots free, for other uses than writing. Raises RequestError while a text is written."""
        self._require_open()
        if self._inbox:
            raise RequestError("a text is still being written; finish or close its iterator before scoring another")
        self._scheduler.forget()
        return self.engine

    def pieces(
        self,
        prompt: str | None = None,
        *,
        samples: int | None = 1,
        first_sample: int = 0,
        sampling: SamplingConfig | None = None,
        stop: StopConfig | None = None,
        logprobs: int = 0,
    ) -> Iterator[Piece]:
        """As `generate`, but everything as it comes, the samples interleaved. Closing the iterator cancels the rest.

        Args:
            samples: how many; None is without end.
            first_sample: the number of the first: another number is another try, also with the same seed.
        """
        if samples is not None and samples < 1:
            raise RequestError(f"{samples} samples were asked for; at least 1 is needed")
        numbers = islice(count(first_sample), samples)
        return self.write((Prompt(prompt, n) for n in numbers), sampling=sampling, stop=stop, logprobs=logprobs)

    def write(
        self,
        prompts: Iterable[Prompt],
        *,
        sampling: SamplingConfig | None = None,
        stop: StopConfig | None = None,
        logprobs: int = 0,
    ) -> Iterator[Piece]:
        """Continue many prompts, as many at once as the engine has slots; `prompts` is read as slots become free."""
        if logprobs < 0:
            raise RequestError(f"{logprobs} alternatives were asked for; 0 or more can be given")
        task = self._task(sampling or SamplingConfig(), stop or StopConfig(), logprobs)
        ahead, growing = enumerate(prompts), dict[Ticket, _Growing]()
        try:
            while True:
                for ticket in list(growing):
                    yield from self._news(ticket, growing, task.seed)
                for number, prompt in islice(ahead, 2 * self.engine.slots - len(growing)):
                    ticket = self._scheduler.submit(task.request(prompt), group=task)
                    growing[ticket], self._inbox[ticket] = _Growing(number, task.stream()), deque()
                if not growing:
                    return
                self._step()
        finally:
            for ticket in growing:
                self._scheduler.cancel(ticket)
                self._inbox.pop(ticket, None)

    def count_tokens(
        self, prompts: Iterable[str | None], *, sampling: SamplingConfig | None = None, stop: StopConfig | None = None
    ) -> Iterator[int]:
        """How many tokens each prompt has. Raises RequestError where `write` would refuse it: too long, no such ids."""
        task = self._task(sampling or SamplingConfig(), stop or StopConfig())
        for prompt in prompts:
            request = task.request(Prompt(prompt))
            self._scheduler.check(request)
            yield len(request.ids)

    def close(self) -> None:
        """Free the engine; what was not written to its end by then cannot go on."""
        if not self._closed:
            self._closed = True
            self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _task(self, sampling: SamplingConfig, stop: StopConfig, logprobs: int = 0) -> _Task:
        # Padded vocabularies have ids without text.
        sampling = replace(sampling, banned_ids=sampling.banned_ids + self._unspeakable)
        return _Task(self.tokenizer, seeded(sampling), stop, logprobs)

    def _step(self) -> None:
        """Think once for every open iterator, and leave each its own events."""
        self._require_open()
        try:
            for event in self._scheduler.step():
                if (inbox := self._inbox.get(event.ticket)) is not None:
                    inbox.append(event)
        except BaseException:
            # Ctrl-C may have swallowed events, and a text with a hole is worse than none.
            for ticket, inbox in list(self._inbox.items()):
                self._scheduler.cancel(ticket)
                inbox.append(Done(ticket, "failed"))
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise RequestError("this model was closed, so it writes and scores nothing more; load it again")

    def _news(self, ticket: Ticket, growing: dict[Ticket, _Growing], seed: int) -> Iterator[Piece]:
        sample, inbox = growing[ticket], self._inbox[ticket]
        while inbox:
            event = inbox.popleft()
            if isinstance(event, Done):
                del self._inbox[ticket], growing[ticket]
                if event.reason == "failed" and not sample.stream.stopped:
                    others = Gpt2kitError("this text was given up, for thinking failed while it was being written")
                    raise event.error or others
                yield sample.last_piece("length" if event.reason == "length" else "stop", seed)
                return
            if sample.stream.stopped:
                continue  # chosen before the scheduler was told
            yield sample.take(event)
            if sample.stream.stopped:
                self._scheduler.cancel(ticket)


def _has_text(tokenizer: Tokenizer, token_id: int) -> bool:
    try:
        tokenizer.bytes_of(token_id)
    except RequestError:
        return False
    return True


class _Task:
    """What all texts of one call have in common."""

    def __init__(self, tokenizer: Tokenizer, sampling: SamplingConfig, stop: StopConfig, logprobs: int) -> None:
        self._tokenizer, self._sampling, self._stop, self._logprobs = tokenizer, sampling, stop, logprobs
        assert sampling.seed is not None
        self.seed = sampling.seed
        self._bans = BannedWords(tokenizer, sampling.banned_words) if sampling.banned_words else None

    def request(self, prompt: Prompt) -> Request:
        end_id = self._tokenizer.end_id
        ids = tuple(self._tokenizer.encode(prompt.text or "")) or (end_id,)
        return Request(ids, self._sampling, self._stop, end_id, self._logprobs, prompt.sample, self._bans)

    def stream(self) -> TextStream:
        stop = self._stop
        return TextStream(
            self._tokenizer, stop.stop, until_sentence=stop.until_sentence, min_tokens=stop.min_new_tokens
        )


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
