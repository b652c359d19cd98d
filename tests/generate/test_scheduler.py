import math

import numpy as np
import pytest

from gpt2kit.config.model import ModelConfig
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import PromptTooLong, RequestError
from gpt2kit.generate.scheduler import Done, Request, Scheduler, Token, check_prompt, check_settings

END = 15
GREEDY = SamplingConfig(temperature=0)


class CountingEngine:
    """Thinks that after 3 comes 4, less likely 5, still less 6; after 15 comes 0. Remembers what it was fed."""

    exact_in_batches = True

    def __init__(self, slots=2, window=64):
        self.config = ModelConfig(vocab_size=16, window=window, width=1, layers=1, heads=1, inner_width=1)
        self.slots, self.capacity = slots, slots * window
        self.held = {}
        self.fed = []
        self.together = []

    def step(self, rows):
        assert len({row.slot for row in rows}) == len(rows), "one row a slot"
        self.together.append(len(rows))
        logits_RV = np.empty((len(rows), 16), np.float32)
        for row, logits_V in zip(rows, logits_RV, strict=True):
            assert 0 <= row.slot < self.slots
            assert row.logits == "last"
            self.fed.append(list(row.ids))
            held = self.held.setdefault(row.slot, [])
            held += row.ids
            assert 0 < len(held) <= self.config.window
            logits_V[:] = [-((id - held[-1] - 1) % 16) for id in range(16)]
        return logits_RV

    def truncate(self, slot, length):
        self.held[slot] = self.held.get(slot, [])[:length]

    def share(self, source, target, length):
        raise NotImplementedError

    def close(self):
        pass


def request(*ids, sampling=GREEDY, logprobs=0, **stop):
    return Request(ids, sampling, StopConfig(**stop), END, logprobs)


def run(scheduler):
    events = []
    while scheduler.busy:
        events += scheduler.step()
    return events


def told(events, ticket):
    """The ids of one request, and how it ended."""
    mine = [event for event in events if event.ticket == ticket]
    assert isinstance(mine[-1], Done)
    return [event.id for event in mine[:-1]], mine[-1].reason


def alone(*requests, **engine):
    """What becomes of the requests on an engine of their own: ids and reasons, and the engine."""
    engine = CountingEngine(**engine)
    scheduler = Scheduler(engine)
    tickets = [scheduler.submit(request) for request in requests]
    events = run(scheduler)
    return [told(events, ticket) for ticket in tickets], engine


# --- when a text ends ---


def test_a_text_ends_before_the_end_token():
    (outcome,), _ = alone(request(12))
    assert outcome == ([13, 14], "stop")


def test_the_end_token_can_be_ignored():
    (outcome,), _ = alone(request(12, ignore_end=True, max_new_tokens=5))
    assert outcome == ([13, 14, 15, 0, 1], "length")


def test_a_text_ends_before_a_stop_id():
    (outcome,), _ = alone(request(3, stop_ids=(9, 6)))
    assert outcome == ([4, 5], "stop")


def test_a_text_ends_after_max_new_tokens():
    (outcome,), engine = alone(request(3, max_new_tokens=4))
    assert outcome == ([4, 5, 6, 7], "length")
    assert engine.fed == [[3], [4], [5], [6]]


def test_the_end_token_may_not_come_too_early():
    """After 14 the end is banned, so 0 follows; the next end may come."""
    (outcome,), _ = alone(request(13, min_new_tokens=3))
    assert outcome == ([14, *range(15)], "stop")


def test_stop_ids_may_not_come_too_early():
    (outcome,), _ = alone(request(3, stop_ids=(4,), min_new_tokens=1, max_new_tokens=2))
    assert outcome == ([5, 6], "length")


def test_exactly_min_new_tokens_are_enough():
    (outcome,), _ = alone(request(12, min_new_tokens=2))
    assert outcome == ([13, 14], "stop")


# --- a full window ---


def test_a_full_window_slides_to_its_newest_half():
    (outcome,), engine = alone(request(0, 1, 2, max_new_tokens=6), window=4)
    assert outcome == ([3, 4, 5, 6, 7, 8], "length")
    assert engine.fed == [[0, 1, 2], [3], [3, 4], [5], [6], [6, 7]]


@pytest.mark.parametrize(("window", "kept"), [(6, [4, 5, 6]), (5, [5, 6]), (4, [5, 6]), (3, [6]), (2, [6]), (1, [6])])
def test_a_long_prompt_slides_before_its_first_token(window, kept):
    (outcome,), engine = alone(request(0, 1, 2, 3, 4, 5, 6, max_new_tokens=1), window=window)
    assert outcome == ([7], "length")
    assert engine.fed == [kept]


def test_a_prompt_as_long_as_the_window_is_read_whole():
    (outcome,), engine = alone(request(0, 1, 2, 3, max_new_tokens=2), window=4)
    assert outcome == ([4, 5], "length")
    assert engine.fed == [[0, 1, 2, 3], [3, 4]]


def test_a_window_of_one_slides_too():
    (outcome,), engine = alone(request(3, max_new_tokens=3), window=1)
    assert outcome == ([4, 5, 6], "length")
    assert engine.fed == [[3], [4], [5]]


def test_a_text_longer_than_the_window_takes_the_memory_of_one_window():
    _, engine = alone(*[request(0, max_new_tokens=20, ignore_end=True)] * 2, slots=2, window=4)
    assert engine.together == [2] * 20


def test_a_full_window_can_end_the_text():
    (outcome,), engine = alone(request(0, 1, 2, overflow="stop"), window=4)
    assert outcome == ([3, 4], "length")
    assert engine.fed == [[0, 1, 2], [3]]
    (outcome,), _ = alone(request(0, 1, 2, 3, overflow="stop"), window=4)
    assert outcome == ([4], "length")


@pytest.mark.parametrize("overflow", ["stop", "error"])
def test_a_prompt_longer_than_the_window_is_refused_where_it_may_not_slide(overflow):
    with pytest.raises(PromptTooLong, match="5"):
        check_prompt(
            (0, 1, 2, 3, 4), StopConfig(overflow=overflow, max_new_tokens=1), None, CountingEngine(window=4).config
        )


def test_a_text_that_may_not_fit_can_be_refused():
    stop = StopConfig(overflow="error", max_new_tokens=6)
    with pytest.raises(PromptTooLong, match=r"3 prompt tokens and 6 new ones exceed the window of 8"):
        check_prompt((0, 1, 2), stop, None, CountingEngine(window=8).config)


def test_a_text_that_just_fits_is_not_refused():
    (outcome,), engine = alone(request(0, 1, 2, overflow="error", max_new_tokens=5), window=8)
    assert outcome == ([3, 4, 5, 6, 7], "length")
    assert engine.fed[0] == [0, 1, 2]


# --- many requests ---


def test_more_requests_than_slots_all_end_as_they_do_alone():
    requests = [request(12), request(3, max_new_tokens=7), request(0), request(8, stop_ids=(9,)), request(14)]
    together, _ = alone(*requests, slots=2)
    assert together == [alone(one)[0][0] for one in requests]


def test_requests_start_in_the_order_they_came():
    _, engine = alone(*[request(id, max_new_tokens=1) for id in (5, 3, 9, 1)], slots=2)
    assert engine.fed == [[5], [3], [9], [1]]


def test_a_request_submitted_while_others_run_is_served():
    scheduler = Scheduler(CountingEngine())
    scheduler.submit(request(3))
    scheduler.step()
    late = scheduler.submit(request(12))
    assert told(run(scheduler), late) == ([13, 14], "stop")


def test_what_finished_sequences_left_can_be_forgotten():
    engine = CountingEngine()
    scheduler = Scheduler(engine)
    for n in (1, 2, 3):
        scheduler.submit(request(3, max_new_tokens=n))
    run(scheduler)
    cancelled = scheduler.submit(request(4))
    scheduler.step()
    scheduler.cancel(cancelled)
    scheduler.forget()
    assert not any(engine.held.values())


def test_when_nothing_is_left_there_are_no_events():
    scheduler = Scheduler(CountingEngine())
    scheduler.submit(request(12))
    assert scheduler.busy
    run(scheduler)
    assert scheduler.step() == []


def test_a_scheduler_without_requests_does_not_think():
    engine = CountingEngine()
    scheduler = Scheduler(engine)
    assert not scheduler.busy
    assert scheduler.step() == []
    assert engine.fed == []


@pytest.mark.parametrize("ids", [(16,), (-1,), (3, 99)], ids=str)
def test_a_prompt_of_wrong_ids_is_refused(ids):
    with pytest.raises(RequestError, match="this model's ids are 0 to 15"):
        check_prompt(ids, StopConfig(), None, CountingEngine().config)


@pytest.mark.parametrize("wrong", [{"logit_bias": {16: 1}}, {"banned_ids": (1, 16)}, {"forced_ids": (16,)}], ids=str)
def test_sampling_that_names_wrong_ids_is_refused(wrong):
    with pytest.raises(RequestError, match="no token id 16"):
        check_settings(SamplingConfig(**wrong), StopConfig(), CountingEngine().config)


def test_stopping_at_wrong_ids_is_refused():
    with pytest.raises(RequestError, match="no token id 16"):
        check_settings(GREEDY, StopConfig(stop_ids=(3, 16)), CountingEngine().config)


def test_an_empty_prompt_is_refused():
    with pytest.raises(RequestError, match="one token or more"):
        check_prompt((), StopConfig(), None, CountingEngine().config)


# --- cancelling ---


def test_a_waiting_request_can_be_cancelled_before_it_is_read():
    engine = CountingEngine(slots=1)
    scheduler = Scheduler(engine)
    scheduler.submit(request(12))
    waiting = scheduler.submit(request(3))
    scheduler.cancel(waiting)
    assert Done(waiting, "cancelled") in scheduler.step()
    run(scheduler)
    assert [3] not in engine.fed


def test_a_running_request_can_be_cancelled_within_a_step():
    engine = CountingEngine()
    scheduler = Scheduler(engine)
    going, left = scheduler.submit(request(0)), scheduler.submit(request(5))
    scheduler.step()
    scheduler.cancel(left)
    fed_before = len(engine.fed)
    events = scheduler.step()
    assert [event for event in events if event.ticket == left] == [Done(left, "cancelled")]
    assert engine.fed[fed_before:] == [[1]]
    assert told([*events, *run(scheduler)], going) == (list(range(2, 15)), "stop")


def test_a_slot_that_was_left_starts_clean():
    scheduler = Scheduler(CountingEngine(slots=1))
    left = scheduler.submit(request(3))
    scheduler.step()
    scheduler.cancel(left)
    following = scheduler.submit(request(12))
    assert told(run(scheduler), following) == ([13, 14], "stop")


def test_cancelling_twice_is_reported_once():
    scheduler = Scheduler(CountingEngine())
    ticket = scheduler.submit(request(3))
    scheduler.cancel(ticket)
    scheduler.cancel(ticket)
    assert run(scheduler) == [Done(ticket, "cancelled")]


def test_cancelling_what_is_over_changes_nothing():
    scheduler = Scheduler(CountingEngine())
    ticket = scheduler.submit(request(12))
    run(scheduler)
    scheduler.cancel(ticket)
    assert scheduler.step() == []


# --- what is told about a token ---

# The sum of exp(-n) for the 16 tokens: a geometric series.
TOTAL = (1 - math.exp(-16)) / (1 - math.exp(-1))


def test_a_token_comes_with_the_models_log_probability():
    """The likeliest token has logit 0, whatever the temperature and the filters say."""
    scheduler = Scheduler(CountingEngine())
    scheduler.submit(request(3, sampling=SamplingConfig(seed=1, temperature=0.1, top_k=1), max_new_tokens=1))
    token = scheduler.step()[0]
    assert token.logprob == pytest.approx(-math.log(TOTAL), rel=1e-6)


def test_alternatives_are_the_models_likeliest_tokens():
    scheduler = Scheduler(CountingEngine())
    scheduler.submit(request(3, logprobs=3, max_new_tokens=1))
    token = scheduler.step()[0]
    assert [id for id, _ in token.top] == [4, 5, 6]
    assert [logprob for _, logprob in token.top] == pytest.approx([-n - math.log(TOTAL) for n in range(3)], rel=1e-6)


def test_alternatives_come_only_where_asked_for():
    scheduler = Scheduler(CountingEngine())
    scheduler.submit(request(3, max_new_tokens=1))
    assert isinstance(token := scheduler.step()[0], Token)
    assert token.top == ()


class BrokenOnce(CountingEngine):
    """Thinks nonsense at its second step, then as it should."""

    def step(self, rows):
        logits_RV = super().step(rows)
        return np.full_like(logits_RV, np.nan) if len(self.together) == 2 else logits_RV


def test_a_request_whose_logits_are_no_numbers_fails_with_the_reason():
    scheduler = Scheduler(BrokenOnce())
    ticket = scheduler.submit(request(3, max_new_tokens=5))
    *_, done = run(scheduler)
    assert (done.ticket, done.reason) == (ticket, "failed")
    assert "logits are not numbers" in str(done.error)


class FailingOnce(CountingEngine):
    """Runs out of something at its second step."""

    def step(self, rows):
        logits_RV = super().step(rows)
        if len(self.together) == 2:
            raise RuntimeError("no more")
        return logits_RV


def test_after_a_fault_of_the_engine_the_next_request_finds_free_slots():
    engine = FailingOnce()
    scheduler = Scheduler(engine)
    scheduler.submit(request(3, max_new_tokens=5))
    scheduler.step()
    with pytest.raises(RuntimeError):
        scheduler.step()
    assert not any(engine.held.values())
    assert scheduler.busy
    assert [event.reason for event in scheduler.step()] == ["failed"]
    ticket = scheduler.submit(request(7, max_new_tokens=2))
    assert told(run(scheduler), ticket) == ([8, 9], "length")


def test_a_request_that_may_choose_nothing_fails_alone():
    scheduler = Scheduler(CountingEngine())
    impossible = scheduler.submit(request(3, sampling=SamplingConfig(temperature=0, banned_ids=tuple(range(16)))))
    neighbour = scheduler.submit(request(12))
    events = run(scheduler)
    assert isinstance(events[0], Done)
    assert isinstance(events[0].error, RequestError)
    assert events[0].ticket == impossible
    assert told(events, neighbour) == ([13, 14], "stop")


def test_a_requests_own_bans_see_all_ids_so_far():
    seen = []

    def never_seven(ids):
        seen.append(list(ids))
        return np.array([7])

    (outcome,), _ = alone(Request((5,), GREEDY, StopConfig(max_new_tokens=3), END, bans=never_seven))
    assert outcome == ([6, 8, 9], "length")
    assert seen == [[5], [5, 6], [5, 6, 8]]


def test_a_requests_own_bans_hold_beside_that_of_an_early_end():
    stop = StopConfig(max_new_tokens=1, min_new_tokens=1)
    (outcome,), _ = alone(Request((14,), GREEDY, stop, END, bans=lambda ids: np.array([0])))
    assert outcome == ([1], "length")
