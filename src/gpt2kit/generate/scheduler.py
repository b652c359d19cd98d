"""The only driver of an engine: requests in, one event a token out. No tensors, no text.

Static batches: as many waiting requests as the engine has slots start together, in order of arrival; the next ones
start when all of these are done. A text depends on its own request only, so batches may change without changing it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import PromptTooLong, RequestError
from gpt2kit.generate.engine import Engine, Row
from gpt2kit.generate.sampling import RowState, alternatives, choose

Reason = Literal["stop", "length", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to continue."""

    ids: tuple[int, ...]
    """The prompt, at least one id."""
    sampling: SamplingConfig
    """With a seed, unless the temperature is 0."""
    stop: StopConfig
    end_id: int
    logprobs: int = 0
    """How many of the likeliest alternatives to report with every token."""
    sample: int = 0
    """Which of several samples of the same prompt this is."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The claim on a submitted request."""

    number: int


@dataclass(frozen=True, slots=True)
class Token:
    """One token was chosen."""

    ticket: Ticket
    id: int
    logprob: float
    """What the model gave it, before temperature and filters."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest alternatives, id and log-probability, likeliest first."""


@dataclass(frozen=True, slots=True)
class Done:
    """The request is over; its slot is free."""

    ticket: Ticket
    reason: Reason


Event = Token | Done


@dataclass(slots=True)
class _Running:
    ticket: Ticket
    request: Request
    slot: int
    ids: list[int]
    unfed: list[int] = field(default_factory=list)  # ids the engine has not seen
    held: int = 0  # ids in the slot


class Scheduler:
    """Drives one engine. Not thread-safe: whoever owns the engine calls it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[tuple[Ticket, Request]] = deque()
        self._running: list[_Running] = []
        self._events: list[Event] = []
        self._submitted = 0

    def submit(self, request: Request) -> Ticket:
        """Queue a request. Raises PromptTooLong where its StopConfig forbids to cut it, RequestError for wrong ids."""
        config, stop, sampling = self._engine.config, request.stop, request.sampling
        named = (*request.ids, *sampling.logit_bias, *sampling.banned_ids, *sampling.forced_ids, *stop.stop_ids)
        if not request.ids:
            raise RequestError("a prompt holds one token or more, found none")
        if wrong := [id for id in named if not 0 <= id < config.vocab_size]:
            raise RequestError(f"there is no token id {wrong[0]}; this model's ids are 0 to {config.vocab_size - 1}")
        if stop.overflow == "error" and len(request.ids) + stop.max_new_tokens > config.window:
            raise PromptTooLong(
                f"{len(request.ids)} prompt tokens and {stop.max_new_tokens} new ones exceed the window of "
                f"{config.window}; shorten either, or let the window slide (overflow slide)"
            )
        if stop.overflow == "stop" and len(request.ids) > config.window:
            raise PromptTooLong(f"the prompt has {len(request.ids)} tokens; the window holds {config.window}")
        self._submitted += 1
        ticket = Ticket(self._submitted)
        self._waiting.append((ticket, request))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Give up a request; the next step reports it Done. Unknown or finished tickets are ignored."""
        for entry in self._waiting:
            if entry[0] == ticket:
                self._waiting.remove(entry)
                self._events.append(Done(ticket, "cancelled"))
                return
        for running in self._running:
            if running.ticket == ticket:
                return self._finish(running, "cancelled")

    def step(self) -> list[Event]:
        """Think once for every running request. Returns what happened; an empty list means nothing is left to do."""
        if not self._running:
            self._start_batch()
        if self._running:
            self._think()
        events, self._events = self._events, []
        return events

    def _start_batch(self) -> None:
        while self._waiting and len(self._running) < self._engine.slots:
            ticket, request = self._waiting.popleft()
            running = _Running(ticket, request, len(self._running), list(request.ids))
            running.unfed = list(request.ids)
            self._running.append(running)

    def _think(self) -> None:
        try:
            logits_RV = self._engine.step([Row(running.slot, self._next_ids(running)) for running in self._running])
            choice = choose(logits_RV, [_state(running) for running in self._running])
        except BaseException:
            # What the slots hold now is unknown, so the whole batch is given up.
            for running in list(self._running):
                self._finish(running, "failed")
            raise
        for running, logits_V, id, logprob in zip(
            list(self._running), logits_RV, choice.ids_R.tolist(), choice.logprobs_R.tolist(), strict=True
        ):
            stop = running.request.stop
            if (id == running.request.end_id and not stop.ignore_end) or id in stop.stop_ids:
                self._finish(running, "stop")
                continue
            top = alternatives(logits_V, running.request.logprobs) if running.request.logprobs else ()
            self._events.append(Token(running.ticket, id, logprob, top))
            running.ids.append(id)
            running.unfed.append(id)
            full = running.held >= self._engine.config.window and stop.overflow == "stop"
            if len(running.ids) - len(running.request.ids) >= stop.max_new_tokens or full:
                self._finish(running, "length")

    def _next_ids(self, running: _Running) -> Sequence[int]:
        """What the slot gets now; a slot about to overflow starts again with the newest half of its window."""
        window = self._engine.config.window
        if running.held + len(running.unfed) > window:
            self._engine.truncate(running.slot, 0)
            running.unfed, running.held = running.ids[-max(window // 2, 1) :], 0
        ids, running.unfed = running.unfed, []
        running.held += len(ids)
        return ids

    def _finish(self, running: _Running, reason: Reason) -> None:
        self._engine.truncate(running.slot, 0)
        self._running.remove(running)
        self._events.append(Done(running.ticket, reason))


def _state(running: _Running) -> RowState:
    request = running.request
    written = len(running.ids) - len(request.ids)
    banned = (request.end_id, *request.stop.stop_ids) if written < request.stop.min_new_tokens else ()
    return RowState(request.sampling, running.ids, len(request.ids), request.sample, banned)
