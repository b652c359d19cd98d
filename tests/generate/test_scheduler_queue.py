"""How many run and wait, who is before whom, and that nothing is kept of those that are over."""

from collections import OrderedDict, deque

import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.scheduler import Request, Scheduler, Token


@pytest.fixture(scope="module")
def engine(make_checkpoint):
    return ReferenceEngine(make_checkpoint(20, window=16, width=4, layers=1, heads=1, inner_width=4), slots=2)


def request(first=1, max_new_tokens=2):
    stop = StopConfig(max_new_tokens=max_new_tokens, ignore_end=True)
    return Request((first, 2, 3), SamplingConfig(seed=1), stop, end_id=0)


def run(scheduler):
    events = []
    while scheduler.busy:
        events += scheduler.step()
    return events


def test_those_that_run_and_those_that_wait_are_counted(engine):
    scheduler = Scheduler(engine)
    tickets = [scheduler.submit(request()) for _ in range(5)]
    assert (scheduler.running, scheduler.waiting) == (0, 5)
    scheduler.step()
    assert (scheduler.running, scheduler.waiting) == (2, 3)
    scheduler.cancel(tickets[0])
    scheduler.cancel(tickets[4])
    scheduler.step()
    run(scheduler)
    assert (scheduler.running, scheduler.waiting) == (0, 0)


def test_a_position_counts_those_that_start_before(engine):
    scheduler = Scheduler(engine)
    tickets = [scheduler.submit(request()) for _ in range(5)]
    assert [scheduler.position(ticket) for ticket in tickets] == [0, 1, 2, 3, 4]
    scheduler.step()
    assert [scheduler.position(ticket) for ticket in tickets] == [None, None, 0, 1, 2]
    run(scheduler)
    assert [scheduler.position(ticket) for ticket in tickets] == [None] * 5


def test_positions_are_those_in_which_the_first_tokens_come(make_checkpoint):
    """Ten requests of three groups, one slot."""
    engine = ReferenceEngine(make_checkpoint(20, window=16, width=4, layers=1, heads=1, inner_width=4), slots=1)
    scheduler = Scheduler(engine)
    tickets = [scheduler.submit(request(max_new_tokens=1), group) for group in "aaaabbabbc"]
    expected = sorted(tickets, key=scheduler.position)
    assert [event.ticket for event in run(scheduler) if isinstance(event, Token)] == expected
    assert [ticket.number for ticket in expected] == [1, 5, 10, 2, 6, 3, 8, 4, 9, 7]


def test_who_is_cancelled_is_before_nobody(engine):
    scheduler = Scheduler(engine)
    tickets = [scheduler.submit(request()) for _ in range(5)]
    scheduler.cancel(tickets[3])
    scheduler.step()
    assert [scheduler.position(ticket) for ticket in tickets[2:]] == [0, None, 1]


# --- nothing is kept ---


def entries(thing):
    """How many things the containers of our own objects hold, all together."""
    if isinstance(thing, dict | OrderedDict):
        return len(thing) + sum(entries(value) for value in thing.values())
    if isinstance(thing, list | tuple | set | deque):
        return len(thing) + sum(map(entries, thing))
    ours = type(thing).__module__.startswith("gpt2kit.generate") and hasattr(thing, "__dict__")
    return sum(entries(value) for value in vars(thing).values()) if ours else 0


@pytest.mark.slow
def test_ten_thousand_requests_leave_nothing_behind(engine):
    """Most are cancelled while they wait, some while they run, some when they are over, some never."""
    scheduler = Scheduler(engine)

    def serve(count):
        for number in range(count):
            ticket = scheduler.submit(request(1 + number % 19), group=number)
            if number % 50 == 0:
                scheduler.step()
            if number % 50:
                scheduler.cancel(ticket)
            if number % 1000 == 0:
                run(scheduler)
                scheduler.cancel(ticket)
        run(scheduler)

    serve(100)
    before = entries(scheduler)
    serve(10_000)
    assert entries(scheduler) == before
    assert before < 100


def test_cancelling_what_is_over_is_not_even_noted(engine):
    scheduler = Scheduler(engine)
    ticket = scheduler.submit(request())
    run(scheduler)
    before = entries(scheduler)
    for _ in range(1000):
        scheduler.cancel(ticket)
    assert entries(scheduler) == before
