"""A model ready to write: prompt in, text out. What `gpt2kit.load` returns."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from types import TracebackType
from typing import Self

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import Gpt2kitError, RequestError
from gpt2kit.generate.engine import Engine
from gpt2kit.generate.scheduler import Ticket
from gpt2kit.generate.score import Scores, score
from gpt2kit.generate.texts import Completion, Piece, Requests, Task, Texts, given_up
from gpt2kit.tokenizer.protocol import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to continue, and which of its samples to write."""

    text: str | None = None
    """Plain text: `<|endoftext|>` in it is text. None starts from nothing."""
    sample: int = 0
    """Each sample of one text has its own randomness."""


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
        self.checkpoint, self.tokenizer, self.engine = checkpoint, tokenizer, engine
        self._requests = Requests(checkpoint, tokenizer)
        self.texts = Texts(engine, tokenizer)
        """All that is being written; for those who cannot wait for one text, such as a server."""
        self._inbox: dict[Ticket, deque[Piece | Gpt2kitError]] = {}  # news for every open iterator
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
        return score(self.free_engine(), [self.tokenizer.begin_id, *self.tokenizer.encode(text)], top)

    def free_engine(self) -> Engine:
        """The engine with all slots free, for other uses than writing. Raises RequestError while a text is written."""
        self._require_open()
        if self._inbox:
            raise RequestError("a text is still being written; finish or close its iterator before scoring another")
        self.texts.scheduler.forget()
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
        task = self._task(sampling, stop, logprobs)
        ahead, growing = enumerate(prompts), list[Ticket]()
        try:
            while True:
                for ticket in list(growing):
                    yield from self._news(ticket, growing)
                for number, prompt in islice(ahead, 2 * self.engine.slots - len(growing)):
                    request = self._requests.request(task, self._ids(prompt.text), prompt.sample)
                    growing.append(ticket := self.texts.begin(task, request, number, group=task))
                    self._inbox[ticket] = deque()
                if not growing:
                    return
                self._step()
        finally:
            for ticket in growing:
                self.texts.cancel(ticket)
                self._inbox.pop(ticket, None)

    def count_tokens(
        self, prompts: Iterable[str | None], *, sampling: SamplingConfig | None = None, stop: StopConfig | None = None
    ) -> Iterator[int]:
        """How many tokens each prompt has. Raises RequestError where `write` would refuse it: too long, no such ids."""
        task = self._task(sampling, stop)
        for prompt in prompts:
            yield len(self._requests.request(task, self._ids(prompt)).ids)

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

    def _task(self, sampling: SamplingConfig | None, stop: StopConfig | None, logprobs: int = 0) -> Task:
        return self._requests.task(sampling or SamplingConfig(), stop or StopConfig(), logprobs=logprobs)

    def _ids(self, text: str | None) -> list[int]:
        return self.tokenizer.encode(text or "")

    def _step(self) -> None:
        """Think once for every open iterator, and leave each its own news."""
        self._require_open()
        try:
            for ticket, news in self.texts.step():
                if (inbox := self._inbox.get(ticket)) is not None:
                    inbox.append(news)
        except BaseException:
            for inbox in self._inbox.values():
                inbox.append(given_up())
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise RequestError("this model was closed, so it writes and scores nothing more; load it again")

    def _news(self, ticket: Ticket, growing: list[Ticket]) -> Iterator[Piece]:
        inbox = self._inbox[ticket]
        while inbox:
            news = inbox.popleft()
            over = isinstance(news, Gpt2kitError) or news.completion is not None
            if over:
                del self._inbox[ticket]
                growing.remove(ticket)
            if isinstance(news, Gpt2kitError):
                raise news
            yield news
            if over:
                return  # what may follow was told to all, for those who are not at their end
