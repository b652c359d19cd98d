"""Texts that a server writes side by side: what `Generator`, which waits for one at a time, never asks for."""

import time

import numpy as np
import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import OutOfMemory, PromptTooLong, RequestError
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.score import score
from gpt2kit.generate.texts import Piece, Requests, Texts

GREEDY = SamplingConfig(temperature=0)


@pytest.fixture
def requests(small_checkpoint, tokenizer):
    return Requests(small_checkpoint, tokenizer)


class Flaky(ReferenceEngine):
    """Fails once, when it is told to."""

    fault = None

    def step(self, rows):
        fault, self.fault = self.fault, None
        if fault:
            raise fault
        return super().step(rows)


@pytest.fixture
def engine(small_checkpoint):
    return Flaky(small_checkpoint, 2)


@pytest.fixture
def texts(engine, tokenizer):
    return Texts(engine, tokenizer)


@pytest.fixture
def task(requests):
    """A task that ends after so many tokens, and what else is asked of it."""

    def make(tokens=5, sampling=GREEDY, stop=(), **asked):
        stopping = StopConfig(max_new_tokens=tokens, ignore_end=True, stop=stop)
        return requests.task(sampling, stopping, **asked)

    return make


@pytest.fixture
def begin(texts, requests, tokenizer):
    """Begins a text; its ticket."""
    return lambda task, prompt="the cat", number=0, group=None: texts.begin(
        task, requests.request(task, tokenizer.encode(prompt)), number, group
    )


def all_news(texts):
    news = []
    while texts.scheduler.busy:
        news += texts.step()
    return news


def of(ticket, news):
    return [told for other, told in news if other == ticket]


def text_of(pieces):
    return "".join(piece.text for piece in pieces)


def test_every_text_is_told_apart_by_ticket_and_number(texts, task, begin):
    tickets = [begin(task(), number=number) for number in (7, 8, 9)]
    news = all_news(texts)
    for ticket, number in zip(tickets, (7, 8, 9), strict=True):
        *pieces, last = of(ticket, news)
        assert {piece.sample for piece in [*pieces, last]} == {number}
        assert [piece.token is None for piece in pieces] == [False] * 5
        assert last.completion.text == text_of([*pieces, last])
        assert last.completion.ids == tuple(piece.token.id for piece in pieces)


def test_of_a_text_that_was_cancelled_nothing_more_is_heard(texts, task, begin):
    written, waiting, other = begin(task()), begin(task()), begin(task())
    texts.step()
    texts.cancel(written)
    texts.cancel(waiting)
    texts.cancel(waiting)  # twice is once
    news = all_news(texts)
    assert {ticket for ticket, _ in news} == {other}
    assert (texts.scheduler.running, texts.scheduler.waiting) == (0, 0)


def test_a_cancelled_text_gives_its_slot_to_the_next_in_the_same_step(texts, task, begin):
    first, _, third = begin(task()), begin(task()), begin(task())
    texts.step()
    assert texts.scheduler.position(third) == 0
    texts.cancel(first)
    texts.step()
    assert texts.scheduler.position(third) is None


def test_a_text_that_a_stop_string_ends_frees_its_slot(texts, task, begin):
    whole = text_of(of(begin(task(tokens=20)), all_news(texts)))
    cut = whole[3:5]
    ticket = begin(task(tokens=20, stop=(cut,)))
    *_, last = of(ticket, all_news(texts))
    assert (last.completion.text, last.completion.reason) == (whole[: whole.index(cut)], "stop")
    assert texts.scheduler.running == 0


def test_a_stop_string_is_kept_where_that_is_asked_for(texts, task, begin):
    whole = text_of(of(begin(task(tokens=20)), all_news(texts)))
    cut = whole[3:5]
    news = of(begin(task(tokens=20, stop=(cut,), keep_stop=True)), all_news(texts))
    assert text_of(news) == whole[: whole.index(cut)] + cut == news[-1].completion.text


def test_a_judged_prompt_comes_before_any_text_and_as_scoring_has_it(texts, task, begin, tokenizer, small_checkpoint):
    news = of(begin(task(judge=2), "the dog ate"), all_news(texts))
    told = [bool(piece.judged) for piece in news]
    assert told == sorted(told, reverse=True)
    judged = [token for piece in news for token in piece.judged]
    ids = tokenizer.encode("the dog ate")
    expected = score(ReferenceEngine(small_checkpoint), ids, 2)
    assert [token.id for token in judged] == ids[1:]
    np.testing.assert_allclose([token.logprob for token in judged], expected.logprobs_T, atol=1e-5)
    assert [len(token.top) for token in judged] == [2] * (len(ids) - 1)


def test_the_entropy_of_every_token_is_told_on_request_only(texts, task, begin):
    asked, other = begin(task(entropy=True)), begin(task())
    news = all_news(texts)
    assert all(piece.token.entropy > 0 for piece in of(asked, news) if piece.token)
    assert all(piece.token.entropy is None for piece in of(other, news) if piece.token)


def test_a_text_for_which_no_token_is_left_fails_alone(texts, task, begin, small_checkpoint):
    everything = SamplingConfig(temperature=0, banned_ids=tuple(range(small_checkpoint.config.vocab_size)))
    impossible, fine = begin(task(sampling=everything)), begin(task())
    news = all_news(texts)
    assert [isinstance(told, RequestError) for told in of(impossible, news)] == [True]
    assert of(fine, news)[-1].completion.reason == "length"


@pytest.mark.parametrize("fault", [OutOfMemory("no memory left"), ZeroDivisionError(), KeyboardInterrupt()])
def test_a_fault_ends_all_texts_and_the_next_one_is_whole(texts, engine, task, begin, fault):
    expected = text_of(of(begin(task()), all_news(texts)))
    lost = [begin(task()) for _ in range(4)]
    texts.step()
    engine.fault = fault
    with pytest.raises(type(fault)):
        texts.step()
    ticket = begin(task())
    news = all_news(texts)
    assert {other for other, _ in news} == {ticket}.difference(lost)
    assert text_of(of(ticket, news)) == expected


def test_groups_take_turns(texts, task, begin):
    begin(task())
    begin(task())
    texts.step()  # both slots are taken
    many = [begin(task(), group="many") for _ in range(10)]
    one = begin(task(), group="one")
    assert [texts.scheduler.position(ticket) for ticket in (many[0], one, many[1])] == [0, 1, 2]


def test_the_same_seed_writes_the_same_text_whatever_its_number(texts, task, begin):
    sampling = SamplingConfig(seed=3)
    tickets = [begin(task(sampling=sampling), number=number) for number in range(2)]
    news = all_news(texts)
    assert len({text_of(of(ticket, news)) for ticket in tickets}) == 1


def test_all_texts_of_a_task_without_a_seed_have_the_one_that_was_drawn(texts, task, begin):
    drawn = task(sampling=SamplingConfig())
    tickets = [begin(drawn), begin(drawn)]
    news = all_news(texts)
    assert {of(ticket, news)[-1].completion.seed for ticket in tickets} == {drawn.sampling.seed}


# --- what is refused before anything is written ---


def test_ids_that_no_token_has_are_refused(requests, task):
    with pytest.raises(RequestError, match="there is no token id 320"):
        requests.request(task(), [1, 320])
    with pytest.raises(RequestError, match="there is no token id 999"):
        task(sampling=SamplingConfig(temperature=0, forced_ids=(999,)))


def test_a_prompt_to_be_judged_must_fit_the_window(requests, task):
    with pytest.raises(PromptTooLong, match="has 33 tokens"):
        requests.request(task(judge=0), [1] * 33)


def test_an_id_without_text_can_stand_in_a_prompt_but_not_be_forced(make_checkpoint, tokenizer):
    """Padded vocabularies have them; a text that had to hold one would fail in the middle, and others with it."""
    padded = make_checkpoint(tokenizer.vocab_size + 8)
    requests = Requests(padded, tokenizer)
    nameless = tokenizer.vocab_size + 3
    task = requests.task(GREEDY, StopConfig(max_new_tokens=2, ignore_end=True))
    texts = Texts(ReferenceEngine(padded, 2), tokenizer)
    texts.begin(task, requests.request(task, [1, nameless]))
    assert all_news(texts)[-1][1].completion.reason == "length"
    with pytest.raises(RequestError, match=f"token id {nameless} has no text"):
        requests.task(SamplingConfig(forced_ids=(1, nameless)), task.stop)


def test_a_piece_without_text_has_a_reason_to_be(texts, task, begin):
    """A token in the middle of a character, the prompt's own tokens, or the end."""
    pieces = of(begin(task(tokens=30, judge=0)), all_news(texts))
    assert all(
        isinstance(piece, Piece) and (piece.text or piece.token or piece.judged or piece.completion) for piece in pieces
    )


# --- what much of everything costs ---


def test_thousands_of_texts_with_a_hundred_thousand_banned_and_forced_ids_are_begun_at_once(texts, requests, tokenizer):
    ids = tuple(number % tokenizer.vocab_size for number in range(100_000))
    begun = time.process_time()
    many = requests.task(SamplingConfig(banned_ids=ids, forced_ids=ids), StopConfig())
    for sample in range(2048):
        texts.begin(many, requests.request(many, [1], sample))
    assert time.process_time() - begun < 2
    assert texts.scheduler.waiting == 2048


def test_hundreds_of_thousands_of_banned_ids_make_no_step_slow(texts, begin, task, tokenizer):
    """They were gone through when the task was made."""
    everything_but_5 = tuple(id for id in range(tokenizer.vocab_size) if id != 5) * 1000
    ticket = begin(task(tokens=100, sampling=SamplingConfig(temperature=0, banned_ids=everything_but_5)))
    begun = time.process_time()
    news = of(ticket, all_news(texts))
    assert (time.process_time() - begun) / 100 < 0.005  # going through them takes longer
    assert news[-1].completion.ids == (5,) * 100
