"""The only driver of an engine: requests in, one event a token out. No tensors, no text.

Requests join and leave between steps (or, where asked for, in static batches: the next ones start when all of these are
done). Every step gives each sequence that is being written its one id, and reads at most `prefill_ids` ids of prompts,
oldest first, so that a long prompt does not halt the others. Who waits starts in fair order, when there are a slot and
memory for it. What a prompt has in common with what a slot holds, or is about to hold, is copied instead of read again.
A text depends on its own request only, so none of this changes it. A prompt to be judged is read whole, for what is
copied has no logits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Literal

import numpy as np

from gpt2kit.config.model import ModelConfig
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import Gpt2kitError, PromptTooLong, RequestError
from gpt2kit.generate.engine import Engine, Row
from gpt2kit.generate.fair_queue import FairQueue
from gpt2kit.generate.sampling import RowState, alternatives, choose, entropy_of, logprobs_of
from gpt2kit.generate.score import CHUNK
from gpt2kit.generate.slots import WORTH_SHARING, Slots

Bans = Callable[[Sequence[int]], np.ndarray]
Wanted = Literal["none", "last", "all"]
Reason = Literal["stop", "length", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to continue."""

    ids: tuple[int, ...]
    """The prompt, at least one id."""
    sampling: SamplingConfig
    """With a seed, unless the temperature is 0."""
    stop: StopConfig
    end_id: int | None
    logprobs: int = 0
    """How many of the likeliest alternatives to report with every token."""
    sample: int = 0
    """Which of several samples of the same prompt this is."""
    bans: Bans | None = None
    """Which ids may not follow all ids so far, prompt included."""
    judge: int | None = None
    """Report every id of the prompt but the first as well, each with so many alternatives; None: none of them."""
    entropy: bool = False
    """Whether to report with every token how undecided the model was."""


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
    entropy: float | None = None
    """Of what the model gave the whole vocabulary, in nats; None unless asked for."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The next ids of a prompt were read, and are reported as if they had been chosen."""

    ticket: Ticket
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The request is over; its slot is free."""

    ticket: Ticket
    reason: Reason
    error: Gpt2kitError | None = None
    """Why it failed, where the fault lay in this request alone."""


Event = Token | Judged | Done


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

    @property
    def judged(self) -> bool:
        """Whether its prompt is being read, and to be reported."""
        return self.request.judge is not None and len(self.ids) == len(self.request.ids)


def check_settings(sampling: SamplingConfig, stop: StopConfig, config: ModelConfig) -> None:
    """Raise RequestError where they name ids that the model has not."""
    _require_ids(chain(sampling.logit_bias, sampling.banned_ids, sampling.forced_ids, stop.stop_ids), config)


def check_prompt(ids: Sequence[int], stop: StopConfig, judge: int | None, config: ModelConfig) -> None:
    """Raise PromptTooLong where the prompt does not fit and may not be cut, RequestError for wrong ids or none."""
    if not ids:
        raise RequestError("a prompt holds one token or more, found none")
    _require_ids(ids, config)
    if stop.overflow == "error" and len(ids) + stop.max_new_tokens > config.window:
        raise PromptTooLong(
            f"{len(ids)} prompt tokens and {stop.max_new_tokens} new ones exceed the window of "
            f"{config.window}; shorten either, or let the window slide (overflow slide)"
        )
    if stop.overflow == "stop" and len(ids) > config.window:
        raise PromptTooLong(f"the prompt has {len(ids)} tokens; the window holds {config.window}")
    if judge is not None and len(ids) > config.window:
        raise PromptTooLong(
            f"the prompt has {len(ids)} tokens, which can only be judged where all fit the window of "
            f"{config.window}; shorten it, or do not ask for its log-probabilities"
        )


def _require_ids(ids: Iterable[int], config: ModelConfig) -> None:
    for id in ids:
        if not 0 <= id < config.vocab_size:
            raise RequestError(f"there is no token id {id}; this model's ids are 0 to {config.vocab_size - 1}")


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
    def running(self) -> int:
        """How many sequences have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many sequences wait for one."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether anything is left to do or to tell."""
        return bool(self._waiting or self._running or self._events)

    def submit(self, request: Request, group: Hashable = None) -> Ticket:
        """Queue a request that `check_settings` and `check_prompt` have nothing against; groups start in turn."""
        self._submitted += 1
        ticket = Ticket(self._submitted)
        self._waiting.put(ticket, request, group)
        return ticket

    def position(self, ticket: Ticket) -> int | None:
        """How many of those that wait now start before it; None when it does not wait. Later ones may overtake it."""
        return self._waiting.ahead_of(ticket) if ticket in self._waiting else None

    def cancel(self, ticket: Ticket) -> None:
        """Give up a request; the next step reports it Done. Unknown or finished tickets are ignored."""
        # Only noted: an iterator that is garbage-collected may call in the middle of a step.
        if ticket in self._waiting or ticket in self._running:
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
            slot = self._slots.take([] if request.judge is not None else content, need)
            if slot is None:
                return
            begun = request.judge is not None  # with its first id
            self._running[ticket] = _Sequence(ticket, request, slot, list(request.ids), content, begun)
            self._waiting.pop()
            self._begin(self._running[ticket])

    def _think(self) -> None:
        fed = self._share_out()
        logits_RV = self._engine.step([row for _, row in fed])
        end, choosing, last = 0, list[_Sequence](), list[int]()
        for sequence, row in fed:
            begin, end = end, end + {"none": 0, "last": 1, "all": len(row.ids)}[row.logits]
            held = self._slots.held[sequence.slot]
            held += row.ids
            if row.logits == "all":
                self._judge(sequence, logits_RV[begin:end])
            if len(held) == len(sequence.content) and sequence.ticket in self._running:
                choosing.append(sequence)
                last.append(end - 1)
        if len(last) < len(logits_RV):
            logits_RV = logits_RV[last]
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
        fed, left, judgeable = [], self._prefill_ids, CHUNK
        for sequence in self._running.values():
            if not sequence.begun:
                continue
            if len(sequence.content) > self._window:
                sequence.content = list(self._newest(sequence.ids))
                self._slots.clear(sequence.slot)
            held = len(self._slots.held[sequence.slot])
            unfed = sequence.content[held:]
            if len(unfed) > 1:
                unfed = unfed[: min(left, judgeable) if sequence.judged else left]
                left -= len(unfed)
                judgeable -= len(unfed) if sequence.judged else 0
            if unfed:
                whole = held + len(unfed) == len(sequence.content)
                wanted: Wanted = "all" if sequence.judged else "last" if whole else "none"
                fed.append((sequence, Row(sequence.slot, unfed, wanted)))
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

    def _judge(self, sequence: _Sequence, logits_TV: np.ndarray) -> None:
        """Report the ids of the prompt that come after each of those just read."""
        request, end = sequence.request, len(self._slots.held[sequence.slot])
        ids_T = np.array(request.ids[end - len(logits_TV) + 1 : end + 1], np.int64)
        if not ids_T.size:
            return
        logits_TV = logits_TV[: len(ids_T)]  # the last id of a prompt judges none
        try:
            logprobs_T = logprobs_of(logits_TV, ids_T)
        except Gpt2kitError as error:
            return self._finish(sequence, "failed", error)
        judged = zip(ids_T.tolist(), logprobs_T.tolist(), logits_TV, strict=True)
        tokens = tuple(_token(sequence, id, logprob, logits_V, request.judge or 0) for id, logprob, logits_V in judged)
        self._events.append(Judged(sequence.ticket, tokens))

    def _go_on(self, sequence: _Sequence, logits_V: np.ndarray, choice: tuple[int, float] | Gpt2kitError) -> None:
        request, stop = sequence.request, sequence.request.stop
        if isinstance(choice, Gpt2kitError):
            return self._finish(sequence, "failed", choice)
        id, logprob = choice
        is_end = (id == request.end_id and not stop.ignore_end) or id in stop.stop_ids
        if is_end and not (_passes_early_ends(request) and _is_early(sequence)):
            return self._finish(sequence, "stop")
        self._events.append(_token(sequence, id, logprob, logits_V, request.logprobs))
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


def _token(sequence: _Sequence, id: int, logprob: float, logits_V: np.ndarray, count: int) -> Token:
    entropy = entropy_of(logits_V) if sequence.request.entropy else None
    return Token(sequence.ticket, id, logprob, alternatives(logits_V, count), entropy)


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


def _is_early(sequence: _Sequence) -> bool:
    """Whether the text may not end yet."""
    return len(sequence.ids) - len(sequence.request.ids) < sequence.request.stop.min_new_tokens


def _passes_early_ends(request: Request) -> bool:
    """Whether an end that comes too early is a token like others, as in gpt2-ml's demo; elsewhere it cannot come."""
    return request.sampling.chain == "gpt2-ml"


def _state(sequence: _Sequence) -> RowState:
    request = sequence.request
    bans_ends = _is_early(sequence) and not _passes_early_ends(request)
    ends = [id for id in (request.end_id, *request.stop.stop_ids) if id is not None]
    banned = np.array(ends if bans_ends else [], np.int64)
    if request.bans:
        banned = np.concatenate([banned, request.bans(sequence.ids)])
    return RowState(request.sampling, sequence.ids, len(request.ids), request.sample, banned)
