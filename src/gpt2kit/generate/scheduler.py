"""The only driver of an engine: requests in, one event a token out. No tensors, no text.

Requests join and leave between steps (or, where asked for, in static batches: the next ones start when all of these are
done). Every step gives each sequence that is being written its one id, and reads at most `prefill_ids` ids of prompts,
oldest first, so that a long prompt does not halt the others. Who waits starts in fair order, when there are a slot and
memory for it. What a prompt has in common with what a slot holds, or is about to hold, is copied instead of read again.
A text depends on its own request only, so none of this changes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

import numpy as np

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import Gpt2kitError, PromptTooLong, RequestError
from gpt2kit.generate.engine import Engine, Row
from gpt2kit.generate.fair_queue import FairQueue
from gpt2kit.generate.sampling import RowState, alternatives, choose
from gpt2kit.generate.slots import WORTH_SHARING, Slots

Bans = Callable[[Sequence[int]], np.ndarray]
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
    bans: Bans | None = None
    """Which ids may not follow all ids so far, prompt included."""


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
    error: Gpt2kitError | None = None
    """Why it failed, where the fault lay in this request alone."""


Event = Token | Done


@dataclass(slots=True)
class _Sequence:
    ticket: Ticket
    request: Request
    slot: int
    ids: list[int]
    """The prompt, and every token chosen."""
    content: list[int]
    """What the slot is to hold: the end of `ids`, all of it until the window slides."""
    begun: bool = False


class Scheduler:
    """Drives one engine. Not thread-safe: whoever owns the engine calls it."""

    def __init__(
        self, engine: Engine, *, batching: Literal["continuous", "static"] = "continuous", prefill_ids: int = 256
    ) -> None:
        assert prefill_ids >= 1, "a step must read one id of a prompt or more"
        self._engine, self._batching, self._prefill_ids = engine, batching, prefill_ids
        self._slots = Slots(engine)
        self._waiting: FairQueue[Ticket, Request] = FairQueue()
        self._running: dict[Ticket, _Sequence] = {}  # oldest first
        self._cancelled: deque[Ticket] = deque()  # since the last step
        self._events: list[Event] = []
        self._submitted = 0

    @property
    def busy(self) -> bool:
        """Whether anything is left to do or to tell."""
        return bool(self._waiting or self._running or self._events)

    def check(self, request: Request) -> None:
        """Raise PromptTooLong where its StopConfig forbids to cut it, RequestError for wrong ids."""
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

    def submit(self, request: Request, group: Hashable = None) -> Ticket:
        """Queue a request that `check` has nothing against; groups that wait start in turn."""
        self.check(request)
        self._submitted += 1
        ticket = Ticket(self._submitted)
        self._waiting.put(ticket, request, group)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Give up a request; the next step reports it Done. Unknown or finished tickets are ignored."""
        # Only noted: an iterator that is garbage-collected may call in the middle of a step.
        self._cancelled.append(ticket)

    def forget(self) -> None:
        """Empty the slots of finished sequences, which otherwise keep their ids until the room is needed."""
        self._let_go()
        self._slots.forget()

    def step(self) -> list[Event]:
        """Think once for everything that runs. Returns what happened: nothing while prompts are read."""
        try:
            self._let_go()
            self._start()
            if self._running:
                self._think()
        except BaseException:
            self._give_up()
            raise
        events, self._events = self._events, []
        return events

    def _let_go(self) -> None:
        while self._cancelled:
            ticket = self._cancelled.popleft()
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._events.append(Done(ticket, "cancelled"))
            elif ticket in self._running:
                self._finish(self._running[ticket], "cancelled")

    def _start(self) -> None:
        """Give slots to those who wait, as long as there are slots and memory; nobody is passed over."""
        for sequence in self._running.values():  # first of all: the slot that it waits for may be taken now
            self._begin(sequence)
        if self._batching == "static" and self._running:
            return
        while self._waiting:
            ticket, request = self._waiting.first()
            content = list(self._newest(request.ids) if len(request.ids) > self._window else request.ids)
            need = min(len(request.ids) + request.stop.max_new_tokens, self._window)
            slot = self._slots.take(content, need)
            if slot is None:
                return
            self._running[ticket] = _Sequence(ticket, request, slot, list(request.ids), content)
            self._waiting.pop()
            self._begin(self._running[ticket])

    def _think(self) -> None:
        fed = self._share_out()
        logits_RV = self._engine.step([row for _, row in fed])
        for sequence, row in fed:
            self._slots.held[sequence.slot] += row.ids
        choosing = [sequence for sequence, row in fed if row.logits == "last"]
        chosen = _choose_each(logits_RV, choosing)
        for sequence, logits_V, choice in zip(choosing, logits_RV, chosen, strict=True):
            self._go_on(sequence, logits_V, choice)

    def _give_up(self) -> None:
        """End all that runs: how far the step came, and what the slots hold now, is unknown."""
        self._events += [Done(ticket, "failed") for ticket in self._running]
        self._running.clear()
        self._slots.reset()

    def _share_out(self) -> list[tuple[_Sequence, Row]]:
        """Who gets which ids in this step."""
        fed, left = [], self._prefill_ids
        for sequence in self._running.values():
            if not sequence.begun:
                continue
            if len(sequence.content) > self._window:
                sequence.content = list(self._newest(sequence.ids))
                self._slots.clear(sequence.slot)
            held = len(self._slots.held[sequence.slot])
            unfed = sequence.content[held:]
            if len(unfed) > 1:
                unfed = unfed[:left]
                left -= len(unfed)
            if unfed:
                whole = held + len(unfed) == len(sequence.content)
                fed.append((sequence, Row(sequence.slot, unfed, "last" if whole else "none")))
        return fed

    def _begin(self, sequence: _Sequence) -> None:
        """Copy the longest beginning that any slot holds, unless an older sequence is about to hold a longer one."""
        if sequence.begun:
            return
        beginning = sequence.content[:-1]  # the last id is read in any case, for its logits
        source, length = self._slots.longest_beginning(beginning)
        elders = takewhile(lambda elder: elder is not sequence, self._running.values())
        awaited = beginning[: length + WORTH_SHARING]
        if len(awaited) == length + WORTH_SHARING and any(awaited == elder.content[: len(awaited)] for elder in elders):
            return
        if length - len(self._slots.held[sequence.slot]) >= WORTH_SHARING:
            self._slots.share(source, sequence.slot, length)
        sequence.begun = True

    def _go_on(self, sequence: _Sequence, logits_V: np.ndarray, choice: tuple[int, float] | Gpt2kitError) -> None:
        request, stop = sequence.request, sequence.request.stop
        if isinstance(choice, Gpt2kitError):
            return self._finish(sequence, "failed", choice)
        id, logprob = choice
        if (id == request.end_id and not stop.ignore_end) or id in stop.stop_ids:
            return self._finish(sequence, "stop")
        top = alternatives(logits_V, request.logprobs) if request.logprobs else ()
        self._events.append(Token(sequence.ticket, id, logprob, top))
        full = len(sequence.content) >= self._window and stop.overflow == "stop"
        sequence.ids.append(id)
        sequence.content.append(id)
        if len(sequence.ids) - len(request.ids) >= stop.max_new_tokens or full:
            self._finish(sequence, "length")

    def _finish(self, sequence: _Sequence, reason: Reason, error: Gpt2kitError | None = None) -> None:
        self._events.append(Done(sequence.ticket, reason, error))
        del self._running[sequence.ticket]
        self._slots.leave(sequence.slot)

    @property
    def _window(self) -> int:
        return self._engine.config.window

    def _newest(self, ids: Sequence[int]) -> Sequence[int]:
        """What is kept of a text that no longer fits: half a window, so that it need not be cut at every token."""
        return ids[-max(self._window // 2, 1) :]


def _choose_each(logits_RV: np.ndarray, sequences: Sequence[_Sequence]) -> list[tuple[int, float] | Gpt2kitError]:
    """The id and log-probability chosen for each sequence; an error where none can be chosen for it."""
    states = [_state(sequence) for sequence in sequences]
    try:
        choice = choose(logits_RV, states)
    except Gpt2kitError as error:
        if len(sequences) == 1:
            return [error]
        alone = zip(logits_RV, sequences, strict=True)
        return [outcome for logits_V, sequence in alone for outcome in _choose_each(logits_V[None], [sequence])]
    return list(zip(choice.ids_R.tolist(), choice.logprobs_R.tolist(), strict=True))


def _state(sequence: _Sequence) -> RowState:
    request = sequence.request
    early = len(sequence.ids) - len(request.ids) < request.stop.min_new_tokens
    banned = np.array([request.end_id, *request.stop.stop_ids] if early else [], np.int64)
    if request.bans:
        banned = np.concatenate([banned, request.bans(sequence.ids)])
    return RowState(request.sampling, sequence.ids, len(request.ids), request.sample, banned)
