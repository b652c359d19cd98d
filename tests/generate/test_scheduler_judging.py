"""Prompts whose own ids are reported, and what else is told about every token."""

from collections import Counter

import numpy as np
import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import PromptTooLong
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.sampling import entropy_of
from gpt2kit.generate.scheduler import Done, Judged, Request, Scheduler, Token, check_prompt
from gpt2kit.generate.score import score
from gpt2kit.generate.torch_engine import TorchEngine

GREEDY = SamplingConfig(temperature=0)
END = 0


@pytest.fixture(params=[ReferenceEngine, TorchEngine], ids=["reference", "torch"])
def engine(request, small_checkpoint):
    return request.param(small_checkpoint, slots=3)


class Recording(ReferenceEngine):
    """Remembers the rows and the logits of every step; those after the id `broken` are no numbers."""

    def __init__(self, checkpoint, slots=3, broken=None):
        super().__init__(checkpoint, slots)
        self.rows, self.logits, self.broken = [], [], broken

    def step(self, rows):
        logits_NV = super().step(rows)
        kept = {"none": slice(0, 0), "last": slice(-1, None), "all": slice(None)}
        read = [id for row in rows for id in row.ids[kept[row.logits]]]
        logits_NV[[id == self.broken for id in read]] = np.nan
        self.rows.append([(row.slot, len(row.ids), row.logits) for row in rows])
        self.logits.append(logits_NV)
        return logits_NV


@pytest.fixture
def recording(small_checkpoint):
    return Recording(small_checkpoint)


@pytest.fixture
def long_recording(make_checkpoint):
    return Recording(make_checkpoint(257, window=400, width=16, layers=1, heads=2))


def prompt(length, vocab_size=256, seed=0):
    return tuple(np.random.default_rng([seed, length]).integers(1, vocab_size, length).tolist())


def request(ids, *, logprobs=0, judge=None, entropy=False, max_new_tokens=4, overflow="slide"):
    stop = StopConfig(max_new_tokens=max_new_tokens, ignore_end=True, overflow=overflow)
    return Request(tuple(ids), GREEDY, stop, END, logprobs, judge=judge, entropy=entropy)


def run(scheduler):
    events = []
    while scheduler.busy:
        events += scheduler.step()
    return events


def events_of(engine, asked, **settings):
    scheduler = Scheduler(engine, **settings)
    scheduler.submit(asked)
    return run(scheduler)


def judged(events):
    return [token for event in events if isinstance(event, Judged) for token in event.tokens]


def written(events):
    return [event.id for event in events if isinstance(event, Token)]


# --- what is reported ---


@pytest.mark.parametrize("length", [2, 3, 17, 32])
def test_a_prompt_is_judged_as_the_same_text_is_scored(engine, length):
    """32 ids fill the window."""
    ids = prompt(length)
    expected = score(engine, ids, top=3)
    tokens = judged(events_of(engine, request(ids, judge=3)))
    assert [token.id for token in tokens] == list(ids[1:]) == expected.ids_T.tolist()
    np.testing.assert_allclose([token.logprob for token in tokens], expected.logprobs_T, atol=1e-5)
    assert [[id for id, _ in token.top] for token in tokens] == [[id for id, _ in entry] for entry in expected.top]
    np.testing.assert_allclose([token.top for token in tokens], expected.top, atol=1e-5)


@pytest.mark.parametrize("prefill_ids", [1, 2, 7, 256])
def test_all_of_the_prompt_comes_in_order_before_the_first_new_token(engine, prefill_ids):
    ids = prompt(20)
    events = events_of(engine, request(ids, judge=0), prefill_ids=prefill_ids)
    assert [token.id for token in judged(events)] == list(ids[1:])
    kinds = [type(event) for event in events]
    assert kinds == sorted(kinds, key=[Judged, Token, Done].index)
    assert Counter(kinds) == {Judged: -(-19 // min(prefill_ids, 20)), Token: 4, Done: 1}


@pytest.mark.slow
@pytest.mark.parametrize("prefill_ids", [3, 256])
@pytest.mark.parametrize("length", [1, 5, 31, 32])
def test_a_text_is_the_same_whether_its_prompt_is_judged_or_not(engine, length, prefill_ids):
    """And when the window slides afterwards."""
    plain = request(prompt(length), max_new_tokens=20)
    reported = request(prompt(length), judge=2, max_new_tokens=20)
    assert written(events_of(engine, plain)) == written(events_of(engine, reported, prefill_ids=prefill_ids))


def test_a_prompt_of_one_id_has_nothing_to_judge(engine):
    assert judged(events_of(engine, request([5], judge=2))) == []


def test_judging_without_alternatives_reports_none(engine):
    assert [token.top for token in judged(events_of(engine, request(prompt(4), judge=0)))] == [()] * 3


def test_a_log_probability_is_the_very_number_among_the_alternatives(engine):
    vocab_size = engine.config.vocab_size
    events = events_of(engine, request(prompt(20), judge=vocab_size, logprobs=vocab_size))
    new = [event for event in events if isinstance(event, Token)]
    for token in judged(events) + new:
        assert dict(token.top)[token.id] == token.logprob
    assert [token.logprob for token in new] == [max(dict(token.top).values()) for token in new]


def test_the_entropy_is_that_of_the_models_logits(recording):
    events = events_of(recording, request(prompt(6), judge=0, entropy=True))
    expected = [entropy_of(logits_V) for logits_NV in recording.logits for logits_V in logits_NV]
    tokens = judged(events) + [event for event in events if isinstance(event, Token)]
    assert [token.entropy for token in tokens] == expected
    assert min(expected) > 0


def test_no_entropy_is_told_unless_asked_for(engine):
    events = events_of(engine, request(prompt(6), judge=1, logprobs=1))
    tokens = judged(events) + [event for event in events if isinstance(event, Token)]
    assert {token.entropy for token in tokens} == {None}


# --- how it is read ---


@pytest.mark.parametrize("overflow", ["slide", "stop"])
def test_a_prompt_longer_than_the_window_cannot_be_judged(engine, overflow):
    with pytest.raises(PromptTooLong, match=r"33 tokens.* window .*32"):
        check_prompt(prompt(33), StopConfig(overflow=overflow), 0, engine.config)


def test_the_logits_of_128_positions_exist_at_once_whoever_asks(long_recording):
    scheduler = Scheduler(long_recording, prefill_ids=1000)
    for seed in range(3):
        scheduler.submit(request(prompt(150, seed=seed), judge=0, max_new_tokens=1))
    assert len(judged(run(scheduler))) == 3 * 149
    assert [sum(count for _, count, _ in rows) for rows in long_recording.rows] == [128, 128, 128, 450 - 3 * 128]
    assert {logits for rows in long_recording.rows for _, _, logits in rows} == {"all"}


def test_prompts_that_are_not_judged_are_read_beside_those_that_are(long_recording):
    scheduler = Scheduler(long_recording, prefill_ids=256)
    scheduler.submit(request(prompt(300, seed=1), judge=0))
    scheduler.submit(request(prompt(300, seed=2)))
    scheduler.step()
    assert [(count, logits) for _, count, logits in long_recording.rows[0]] == [(128, "all"), (128, "none")]


def test_a_beginning_that_a_slot_holds_is_judged_all_the_same(recording):
    scheduler = Scheduler(recording)
    for judge in (None, 0, 0):
        scheduler.submit(request(prompt(20), judge=judge))
        events = run(scheduler)
    assert [token.id for token in judged(events)] == list(prompt(20)[1:])


def test_equal_prompts_are_each_judged_whole(recording):
    scheduler = Scheduler(recording)
    tickets = [scheduler.submit(request(prompt(20), judge=0)) for _ in range(3)]
    events = run(scheduler)
    for ticket in tickets:
        mine = [event for event in events if event.ticket == ticket]
        assert [token.id for token in judged(mine)] == list(prompt(20)[1:])
        assert {token.ticket for token in judged(mine)} == {ticket}


def test_others_may_begin_with_what_was_judged(recording):
    scheduler = Scheduler(recording)
    scheduler.submit(request(prompt(20), judge=0, max_new_tokens=1))
    run(scheduler)
    scheduler.submit(request(prompt(20), max_new_tokens=1))
    scheduler.step()
    assert [count for _, count, _ in recording.rows[-1]] == [1]


# --- company ---


def test_texts_go_on_as_alone_while_a_prompt_is_judged(recording):
    other = request(prompt(9, seed=7), max_new_tokens=12)
    alone = written(events_of(recording, other))
    scheduler = Scheduler(recording, prefill_ids=5)
    ticket = scheduler.submit(other)
    scheduler.submit(request(prompt(30), judge=2))
    scheduler.submit(request(prompt(25), judge=0))
    assert written(event for event in run(scheduler) if event.ticket == ticket) == alone


@pytest.mark.parametrize(("prefill_ids", "told"), [(4, [2]), (256, [])])
def test_a_prompt_after_which_nothing_can_be_thought_fails_alone(small_checkpoint, prefill_ids, told):
    scheduler = Scheduler(Recording(small_checkpoint, broken=77), prefill_ids=prefill_ids)
    before = scheduler.submit(request([1, 2, 3], judge=0))
    wrong = scheduler.submit(request([1, 2, 77, 3, 4, 5], judge=0))
    behind = scheduler.submit(request([4, 5, 6], judge=0))
    events = run(scheduler)
    *read, done = [event for event in events if event.ticket == wrong]
    assert [token.id for token in judged(read)] == told
    assert (done.reason, "logits are not numbers" in str(done.error)) == ("failed", True)
    for ticket, ids in [(before, [2, 3]), (behind, [5, 6])]:
        mine = [event for event in events if event.ticket == ticket]
        assert [token.id for token in judged(mine)] == ids
        assert mine[-1] == Done(ticket, "length")


def test_a_request_can_be_cancelled_while_its_prompt_is_judged(recording):
    scheduler = Scheduler(recording, prefill_ids=4)
    ticket = scheduler.submit(request(prompt(20), judge=0))
    begun = scheduler.step()
    scheduler.cancel(ticket)
    assert [token.id for token in judged(begun)] == list(prompt(20)[1:5])
    assert run(scheduler) == [Done(ticket, "cancelled")]
