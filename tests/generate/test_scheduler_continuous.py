"""Requests that come and go while others are written, with an engine whose time is counted, not measured."""

import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.config.model import ModelConfig
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.generate.scheduler import Done, Request, Scheduler, Token

VOCAB, END = 16, 15
SEEDED = SamplingConfig(seed=3)


class HashingEngine:
    """Its logits are a hash of all ids in the slot, so a wrong id anywhere changes the text. A step takes 1 second, and
    every id 1/100 more, by a clock of its own."""

    exact_in_batches = True

    def __init__(self, slots=4, window=64, capacity=None):
        self.config = ModelConfig(vocab_size=VOCAB, window=window, width=1, layers=1, heads=1, inner_width=1)
        self.slots, self.capacity = slots, capacity or slots * window
        self.held = [[] for _ in range(slots)]
        self.steps = []
        self.now = 0.0

    def step(self, rows):
        assert rows
        assert len({row.slot for row in rows}) == len(rows), "one row a slot"
        self.steps.append(rows)
        self.now += 1 + sum(len(row.ids) for row in rows) / 100
        for row in rows:
            assert row.ids
            self.held[row.slot] += row.ids
            assert len(self.held[row.slot]) <= self.config.window
        assert sum(map(len, self.held)) <= self.capacity or sum(map(bool, self.held)) == 1
        wanted = [random.Random(str(self.held[row.slot])) for row in rows if row.logits == "last"]
        logits_RV = np.array([[source.gauss(0, 1) for _ in range(VOCAB)] for source in wanted], np.float32)
        return logits_RV.reshape(len(wanted), VOCAB)

    def truncate(self, slot, length):
        del self.held[slot][length:]

    def share(self, source, target, length):
        assert not self.held[target], "only a free slot can be started"
        assert length <= len(self.held[source])
        self.held[target] = self.held[source][:length]

    def close(self):
        pass

    @property
    def ids_thought_about(self):
        return sum(len(row.ids) for rows in self.steps for row in rows)


def request(ids, sample=0, sampling=SEEDED, **stop):
    return Request(tuple(ids), sampling, StopConfig(ignore_end=True, **stop), END, sample=sample)


def prompt(length, seed=0):
    return [random.Random(f"{seed}.{place}").randrange(VOCAB) for place in range(length)]


def run(scheduler):
    events = []
    while scheduler.busy:
        events += scheduler.step()
    return events


def engine_after(*requests, batching="continuous", prefill_ids=256, **engine):
    """An engine that has written all of these, asked for at once."""
    engine = HashingEngine(**engine)
    scheduler = Scheduler(engine, batching=batching, prefill_ids=prefill_ids)
    for one in requests:
        scheduler.submit(one)
    run(scheduler)
    return engine


def texts(events):
    ids = defaultdict(list)
    for event in events:
        if isinstance(event, Token):
            ids[event.ticket].append(event.id)
    return ids


def text_alone(request, window=64):
    scheduler = Scheduler(HashingEngine(slots=1, window=window))
    ticket = scheduler.submit(request)
    return texts(run(scheduler))[ticket]


def rows_of(engine, step):
    return [(row.slot, len(row.ids), row.logits) for row in engine.steps[step]]


# --- joining and leaving between steps ---


def test_a_request_joins_while_others_are_written():
    engine = HashingEngine()
    scheduler = Scheduler(engine)
    scheduler.submit(request(prompt(3), max_new_tokens=50))
    scheduler.step()
    late = scheduler.submit(request(prompt(2, seed=1), max_new_tokens=1))
    events = scheduler.step()
    assert Done(late, "length") in events
    assert sorted(len(row.ids) for row in engine.steps[-1]) == [1, 2]


def test_a_slot_that_is_left_is_taken_at_the_next_step():
    engine = engine_after(*[request(prompt(2, seed=new), max_new_tokens=new) for new in (1, 9, 9)], slots=2)
    assert [len(rows) for rows in engine.steps[:2]] == [2, 2]


def test_in_static_batches_the_next_start_when_all_of_these_are_done():
    three = [request(prompt(2, seed=new), max_new_tokens=new) for new in (1, 4, 2)]
    engine = engine_after(*three, slots=2, batching="static")
    assert [len(rows) for rows in engine.steps] == [2, 1, 1, 1, 1, 1]


# --- a long prompt does not halt the others ---


def test_a_step_reads_no_more_of_prompts_than_it_may():
    two = [request(prompt(length, seed=length), max_new_tokens=2) for length in (250, 60)]
    engine = engine_after(*two, window=1024, prefill_ids=100)
    assert [[count for _, count, _ in rows_of(engine, step)] for step in range(4)] == [[100], [100], [50, 50], [1, 10]]


def test_short_prompts_count_too():
    engine = engine_after(*[request(prompt(2, seed), max_new_tokens=1) for seed in range(3)], prefill_ids=2)
    assert [len(rows) for rows in engine.steps] == [1, 1, 1]


def test_a_text_flows_on_while_an_older_one_slides():
    engine = engine_after(request(prompt(60), max_new_tokens=20), request([1], max_new_tokens=40), prefill_ids=8)
    steps = [number for number, rows in enumerate(engine.steps) if any(row.slot == 1 for row in rows)]
    assert steps == list(range(steps[0], steps[0] + 40))


def test_nothing_is_chosen_before_a_prompt_is_read():
    engine = HashingEngine(window=1024)
    scheduler = Scheduler(engine, prefill_ids=100)
    scheduler.submit(request(prompt(250), max_new_tokens=1))
    assert scheduler.step() == []
    assert scheduler.step() == []
    assert [type(event) for event in scheduler.step()] == [Token, Done]
    assert [rows_of(engine, step)[0][2] for step in range(3)] == ["none", "none", "last"]


@pytest.mark.slow
def test_while_long_prompts_are_read_a_streamed_text_flows_on():
    """No gap between two of its tokens is longer than a step that reads `prefill_ids`."""
    engine = HashingEngine(slots=8, window=1024)
    scheduler = Scheduler(engine, prefill_ids=64)
    streamed = scheduler.submit(request(prompt(4), max_new_tokens=60))
    seen = []
    for number in range(200):
        if number % 3 == 1:
            scheduler.submit(request(prompt(1000, seed=number), max_new_tokens=2))
        seen += [engine.now for event in scheduler.step() if isinstance(event, Token) and event.ticket == streamed]
    assert len(seen) == 60
    assert max(np.diff(seen)) <= 1 + (64 + 8) / 100 + 1e-9


# --- fair order ---


def test_a_thousand_requests_of_one_group_keep_another_waiting_for_one_slot_only():
    engine = HashingEngine(slots=2)
    scheduler = Scheduler(engine)
    for number in range(1000):
        scheduler.submit(request(prompt(2, seed=number), max_new_tokens=5), group="many")
    scheduler.step()
    single = scheduler.submit(request(prompt(2), max_new_tokens=5), group="one")
    for _ in range(9):
        events = scheduler.step()
    assert Done(single, "length") in events


def test_groups_take_turns_and_each_keeps_its_order():
    scheduler = Scheduler(HashingEngine(slots=1))
    names = {}
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        names[scheduler.submit(request(prompt(1), max_new_tokens=1), group=name[0])] = name
    done = [names[event.ticket] for event in run(scheduler) if isinstance(event, Done)]
    assert done == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_nobody_starves_while_new_requests_keep_coming():
    """Two new requests come with every step, more than can be served; each is done in the order they came."""
    engine = HashingEngine(slots=3)
    scheduler = Scheduler(engine)
    done = []
    for number in range(300):
        for new in (3, 7):
            scheduler.submit(request(prompt(1 + number % 20, seed=number), max_new_tokens=new))
        done += [event.ticket.number for event in scheduler.step() if isinstance(event, Done)]
    assert set(range(1, max(done) - 6)) <= set(done)


# --- memory ---


def test_no_more_start_than_memory_holds():
    """Each may come to 20 ids; 50 fit. The engine checks that its capacity is kept."""
    ten = [request(prompt(10, seed=number), max_new_tokens=10) for number in range(10)]
    engine = engine_after(*ten, slots=8, capacity=50)
    assert max(len(rows) for rows in engine.steps) == 2


def test_a_large_request_is_not_passed_over_by_small_ones():
    """There is room for a small one all the time; it starts when the large one does."""
    three = [request(prompt(length, seed), max_new_tokens=5) for length, seed in ((10, 1), (50, 2), (3, 3))]
    engine = engine_after(*three, slots=8, capacity=60)
    begun = [tuple(row.ids) for rows in engine.steps for row in rows if len(row.ids) > 1]
    assert begun == [tuple(prompt(length, seed)) for length, seed in ((10, 1), (50, 2), (3, 3))]


# --- what is read already is not read again ---


@pytest.mark.parametrize("samples", [4, 8])
def test_samples_of_one_prompt_read_it_once(samples):
    """Although the eldest is over by then, and a stranger waits for its slot."""
    one_token = [request(prompt(40), sample, max_new_tokens=1) for sample in range(samples)]
    engine = engine_after(*one_token, request(prompt(9, seed=1), max_new_tokens=1), slots=4)
    assert engine.ids_thought_about == 40 + samples - 1 + 9


def test_samples_of_a_prompt_as_long_as_the_window_read_it_once():
    """The eldest slides, to 32 ids, in the step in which the others begin."""
    engine = engine_after(*[request(prompt(64), sample, max_new_tokens=2) for sample in range(4)])
    assert engine.ids_thought_about == 64 + 3 + 4 * 32


def test_nobody_waits_for_a_beginning_hardly_longer_than_what_there_is():
    engine = HashingEngine(slots=4)
    scheduler = Scheduler(engine, prefill_ids=30)
    scheduler.submit(request(prompt(30), max_new_tokens=1))
    scheduler.step()
    for end in ([0] * 20, [0] * 6, [0] * 8):
        scheduler.submit(request([*prompt(30), *end, 1], max_new_tokens=1))
    scheduler.step()
    assert [count for _, count, _ in rows_of(engine, 1)] == [21, 7]
    run(scheduler)
    assert engine.ids_thought_about == 30 + 21 + 7 + 1


def test_strangers_share_what_their_prompts_have_in_common():
    engine = engine_after(*[request([*prompt(30), end, end], max_new_tokens=1) for end in range(4)])
    assert engine.ids_thought_about == 32 + 3 * 2


@pytest.mark.parametrize(("length", "read"), [(9, 9 + 1), (8, 8 + 8)])
def test_a_beginning_of_fewer_than_8_ids_is_read_again(length, read):
    """The last id of a prompt is read in any case."""
    engine = engine_after(*[request(prompt(length), sample, max_new_tokens=1) for sample in range(2)])
    assert engine.ids_thought_about == read


@pytest.mark.parametrize("slots", [1, 3])
def test_a_text_that_goes_on_is_not_read_again(slots):
    engine = HashingEngine(slots)
    scheduler = Scheduler(engine)
    ticket = scheduler.submit(request(prompt(20), max_new_tokens=10))
    text = [*prompt(20), *texts(run(scheduler))[ticket]]
    before = engine.ids_thought_about
    scheduler.submit(request([*text, 1, 2], max_new_tokens=1))
    run(scheduler)
    assert engine.ids_thought_about - before == 3  # the token chosen last, and the new ones


def test_another_try_reads_one_id():
    engine = HashingEngine(slots=2)
    scheduler = Scheduler(engine)
    for sample in range(3):
        scheduler.submit(request(prompt(20), sample, max_new_tokens=10))
        run(scheduler)
    assert engine.ids_thought_about == (20 + 9) + 2 * (1 + 9)


def test_a_prompt_whose_elder_is_cancelled_is_read_all_the_same():
    engine = HashingEngine(window=64)
    scheduler = Scheduler(engine, prefill_ids=10)
    elder = scheduler.submit(request(prompt(40), max_new_tokens=5))
    younger = scheduler.submit(request(prompt(40), 1, max_new_tokens=5))
    scheduler.step()
    scheduler.cancel(elder)
    assert texts(run(scheduler))[younger] == text_alone(request(prompt(40), 1, max_new_tokens=5))
    assert engine.ids_thought_about == 40 + 4


# --- cancelling ---


def test_a_cancel_in_the_middle_of_a_step_counts_from_the_next():
    """As when the garbage collector finds an iterator just then."""

    class Interfering(HashingEngine):
        def step(self, rows):
            scheduler.cancel(left)
            return super().step(rows)

    scheduler = Scheduler(Interfering())
    going, left = (scheduler.submit(request(prompt(3), sample, max_new_tokens=5)) for sample in range(2))
    events = run(scheduler)
    assert [event for event in events if event.ticket == left][1:] == [Done(left, "cancelled")]
    assert texts(events)[going] == text_alone(request(prompt(3), max_new_tokens=5))


def test_a_storm_of_cancels_leaves_the_others_their_texts():
    engine = HashingEngine(slots=4)
    scheduler = Scheduler(engine)
    chance = random.Random(1)
    asked = {}
    for number in range(600):
        one = request(prompt(1 + number % 30, seed=number % 50), number, max_new_tokens=1 + number % 9)
        asked[scheduler.submit(one, group=number % 3)] = one
    events, cancelled = [], set()
    while scheduler.busy:
        for ticket in chance.sample(sorted(asked, key=lambda ticket: ticket.number), 5):
            if not any(isinstance(event, Done) and event.ticket == ticket for event in events):
                scheduler.cancel(ticket)
                cancelled.add(ticket)
        events += scheduler.step()
    assert Counter(event.ticket for event in events if isinstance(event, Done)) == dict.fromkeys(asked, 1)
    assert {event.ticket for event in events if isinstance(event, Done) and event.reason == "cancelled"} == cancelled
    written = texts(events)
    finished = [ticket for ticket in asked if ticket not in cancelled]
    assert len(finished) > 50
    assert all(written[ticket] == text_alone(asked[ticket]) for ticket in finished)


def test_ten_thousand_waiting_can_be_cancelled():
    scheduler = Scheduler(HashingEngine(slots=1))
    tickets = [scheduler.submit(request([1], max_new_tokens=1)) for _ in range(10_000)]
    for ticket in reversed(tickets):
        scheduler.cancel(ticket)
    assert scheduler.step() == [Done(ticket, "cancelled") for ticket in reversed(tickets)]
    assert not scheduler.busy


# --- any order of events: the text is the request's own ---


@st.composite
def lives(draw):
    """Prompts with beginnings in common, which come, are cancelled and go on at random."""
    common = draw(st.lists(st.integers(0, 3), max_size=40))
    requests = []
    for sample in range(draw(st.integers(1, 8))):
        ids = common[: draw(st.integers(0, len(common)))] + draw(st.lists(st.integers(0, 15), min_size=1, max_size=12))
        sampling = draw(st.sampled_from([SEEDED, SamplingConfig(temperature=0), SamplingConfig(seed=9, top_k=3)]))
        overflow = draw(st.sampled_from(["slide", "slide", "stop"])) if len(ids) <= 24 else "slide"
        requests.append(request(ids, sample, sampling, max_new_tokens=draw(st.integers(1, 30)), overflow=overflow))
    deeds = draw(st.lists(st.sampled_from(["submit", "submit", "step", "step", "step", "cancel"]), max_size=40))
    return requests, deeds


@pytest.mark.slow
@settings(deadline=None)
@given(
    life=lives(),
    slots=st.integers(1, 4),
    capacity=st.integers(20, 96),
    batching=st.sampled_from(["continuous", "static"]),
    prefill_ids=st.integers(1, 30),
    chance=st.randoms(use_true_random=False),
)
def test_a_text_is_the_same_whatever_goes_on_around_it(life, slots, capacity, batching, prefill_ids, chance):
    requests, deeds = life
    engine = HashingEngine(slots, window=24, capacity=capacity)
    scheduler = Scheduler(engine, batching=batching, prefill_ids=prefill_ids)
    asked, events, cancelled, ahead = {}, [], set(), list(requests)
    for deed in deeds + ["submit"] * len(requests):
        if deed == "submit" and ahead:
            one = ahead.pop()
            asked[scheduler.submit(one, group=chance.randrange(2))] = one
        elif deed == "cancel" and asked:
            ticket = chance.choice(list(asked))
            scheduler.cancel(ticket)
            cancelled.add(ticket)
        elif deed == "step":
            events += scheduler.step()
    events += run(scheduler)
    written = texts(events)
    for ticket, one in asked.items():
        whole = text_alone(one, window=24)
        assert written[ticket] == (whole if ticket not in cancelled else whole[: len(written[ticket])])
    assert [len(ids) for ids in engine.held] == [len(ids) for ids in scheduler._slots.held]
