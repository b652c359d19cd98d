"""The text of a request depends on model, prompt, sampling and seed only, whatever real engines do beside it."""

import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import Gpt2kitError
from gpt2kit.generate.generator import Generator, Prompt
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.scheduler import Request, Scheduler, Token
from gpt2kit.generate.torch_engine import TorchEngine

CLEAR = 1e-3  # a margin in logits that no rounding crosses
PROMPTS = ["the cat sat on the mat", "the", "the cat sat on the fog; 床前明月光", "🙂", "the dog ate " * 12, "", None]
SAMPLINGS = [
    SamplingConfig(seed=4, temperature=0),
    SamplingConfig(seed=5),
    SamplingConfig(seed=5, temperature=0.7, top_k=20, top_p=0.9),
    SamplingConfig(seed=6, chain="nshepperd", top_p=0.8),
    SamplingConfig(seed=5, repetition_penalty=1.3, no_repeat_ngram=2, banned_words=("a", "月")),
]
STOPS = [
    StopConfig(max_new_tokens=9),
    StopConfig(max_new_tokens=45, ignore_end=True),  # further than the window of 32
    StopConfig(max_new_tokens=30, stop=("t", "光"), min_new_tokens=3),
    StopConfig(max_new_tokens=30, until_sentence=True),
]


@pytest.fixture(scope="module")
def engine_of(small_checkpoint):
    """Engines are kept: what texts before left in them may not matter either."""
    engines = {}

    def find(kind, slots):
        if (kind, slots) not in engines:
            engines[kind, slots] = kind(small_checkpoint, slots)
        return engines[kind, slots]

    return find


@pytest.fixture(scope="module")
def alone(small_checkpoint, tokenizer):
    """A text written by the reference engine for itself, kept."""
    texts = {}

    def write(prompt, sample, sampling, stop):
        key = prompt, sample, str(sampling), str(stop)
        if key not in texts:
            generator = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint, 1))
            (piece,) = (
                piece
                for piece in generator.write([Prompt(prompt, sample)], sampling=sampling, stop=stop, logprobs=2)
                if piece.completion
            )
            texts[key] = piece.completion
        return texts[key]

    return write


def as_request(tokenizer, prompt, sample, sampling, stop):
    ids = tuple(tokenizer.encode(prompt or "")) or (tokenizer.end_id,)
    return Request(ids, sampling, stop, tokenizer.end_id, 2, sample)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(PROMPTS), st.integers(0, 3), st.sampled_from(SAMPLINGS), st.sampled_from(STOPS)),
        min_size=1,
        max_size=4,
    ),
    slots=st.integers(1, 5),
    leaving=st.integers(0, 4),
)
def test_texts_of_the_reference_engine_are_equal_bit_for_bit_in_any_company(
    small_checkpoint, tokenizer, engine_of, alone, asked, slots, leaving
):
    """Each is written by an iterator of its own, all at once, and one is left after a few pieces."""
    generator = Generator(small_checkpoint, tokenizer, engine_of(ReferenceEngine, slots))
    flows = [
        generator.write([Prompt(prompt, sample)], sampling=sampling, stop=stop, logprobs=2)
        for prompt, sample, sampling, stop in asked
    ]
    left = generator.write([Prompt(PROMPTS[0]), Prompt(PROMPTS[4])], sampling=SAMPLINGS[1], stop=STOPS[1])
    for _ in range(leaving):
        next(left)
    left.close()
    unfinished, found = dict(enumerate(flows)), {}
    while unfinished:
        for number, flow in list(unfinished.items()):
            piece = next(flow)
            if piece.completion:
                found[number] = piece.completion
                del unfinished[number]
    assert [found[number] for number in range(len(asked))] == [alone(*one) for one in asked]
    generator.free_engine()


@pytest.mark.slow
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=range(len(SAMPLINGS)))
def test_eight_samples_are_what_each_is_alone(small_checkpoint, tokenizer, alone, sampling):
    generator = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint, 3))
    together = generator.generate(PROMPTS[0], samples=8, sampling=sampling, stop=STOPS[1], logprobs=2)
    assert together == [alone(PROMPTS[0], sample, sampling, STOPS[1]) for sample in range(8)]


@pytest.mark.slow
def test_a_sample_is_found_again_by_its_number(small_checkpoint, tokenizer, alone):
    generator = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint, 3))
    pieces = generator.pieces(PROMPTS[0], samples=2, first_sample=6, sampling=SAMPLINGS[1], stop=STOPS[1], logprobs=2)
    found = {piece.sample: piece.completion for piece in pieces if piece.completion}
    assert found == {number: alone(PROMPTS[0], 6 + number, SAMPLINGS[1], STOPS[1]) for number in range(2)}


@pytest.mark.slow
@pytest.mark.parametrize("sampling", SAMPLINGS[:2], ids=["temperature 0", "temperature 1"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_streamed_text_is_the_text(small_checkpoint, tokenizer, alone, prompt, sampling):
    generator = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint, 2))
    streamed = "".join(generator.stream(prompt, sampling=sampling, stop=STOPS[2]))
    assert streamed == alone(prompt, 0, sampling, STOPS[2]).text


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("prefill_ids", [5, 256])
@pytest.mark.parametrize("batching", ["continuous", "static"])
def test_greedy_texts_of_torch_are_equal_as_far_as_the_choice_is_clear(
    small_checkpoint, tokenizer, alone, slots, prefill_ids, batching
):
    stop = STOPS[1]
    scheduler = Scheduler(TorchEngine(small_checkpoint, slots), batching=batching, prefill_ids=prefill_ids)
    asked, events = {}, []
    for number, prompt in enumerate(PROMPTS * 2):
        asked[scheduler.submit(as_request(tokenizer, prompt, number, SAMPLINGS[0], stop))] = prompt
        leaving = scheduler.submit(as_request(tokenizer, "the cat sat " * number, 0, SAMPLINGS[1], stop))
        for _ in range(number // 2):
            events += scheduler.step()
        scheduler.cancel(leaving)
    while scheduler.busy:
        events += scheduler.step()
    compared = 0
    for ticket, prompt in asked.items():
        ids = [event.id for event in events if isinstance(event, Token) and event.ticket == ticket]
        expected = alone(prompt, 0, SAMPLINGS[0], stop)
        margins = [top[0][1] - top[1][1] for top in expected.top]
        clear = next((place for place, margin in enumerate(margins) if margin < CLEAR), len(margins))
        assert ids[:clear] == list(expected.ids[:clear])
        compared += clear
    assert compared > 300


# --- many prompts ---


def many(read):
    return (Prompt("the", sample) for sample in iter(lambda: next(read), 1000))


def test_prompts_are_read_as_slots_become_free(small_checkpoint, tokenizer):
    """A few ahead, so that no slot waits for its next text."""
    read = count()
    texts = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint, 3)).write(many(read))
    next(texts)
    assert next(read) == 6


def test_a_thousand_prompts_keep_another_call_waiting_for_one_slot_only(small_checkpoint, tokenizer):
    class Counting(ReferenceEngine):
        steps = 0

        def step(self, rows):
            self.steps += 1
            return super().step(rows)

    engine, stop = Counting(small_checkpoint, 2), StopConfig(max_new_tokens=9, ignore_end=True)
    generator = Generator(small_checkpoint, tokenizer, engine)
    thousand = generator.write(many(count()), stop=stop)
    next(thousand)
    waiting = generator.pieces("the cat", stop=stop)
    next(waiting)
    assert engine.steps == 9 + 1  # two of the thousand were being written; it starts beside the third


# --- faults beside a text ---


def test_a_fault_of_the_callers_prompts_ends_its_own_texts_only(small_checkpoint, tokenizer, alone):
    def prompts():
        yield from (Prompt("the", sample) for sample in range(3))
        raise ValueError("of the caller")

    generator = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint, 2))
    beside = generator.write([Prompt("the")], sampling=SAMPLINGS[0], stop=STOPS[1], logprobs=2)
    first = next(beside)
    with pytest.raises(ValueError, match="of the caller"):
        list(generator.write(prompts(), sampling=SAMPLINGS[1], stop=STOPS[1]))
    assert [first, *beside][-1].completion == alone("the", 0, SAMPLINGS[0], STOPS[1])
    generator.free_engine()


def test_texts_may_be_the_prompts_of_others(small_checkpoint, tokenizer, alone):
    generator = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint, 2))
    sampling, stop = SAMPLINGS[0], STOPS[0]
    first = (Prompt(generator.generate(prompt, sampling=sampling, stop=stop)[0].text) for prompt in PROMPTS[:3])
    found = [
        piece.completion.text for piece in generator.write(first, sampling=sampling, stop=stop) if piece.completion
    ]
    expected = [alone(alone(prompt, 0, sampling, stop).text, 0, sampling, stop).text for prompt in PROMPTS[:3]]
    assert sorted(found) == sorted(expected)


def interrupt(deed, at):
    """Do it, with a Ctrl-C before line number `at` that it executes in steps. Returns whether it came so far."""
    left = at

    def trace(frame, event, _):
        nonlocal left
        code = frame.f_code
        if Path(code.co_filename).name not in ("scheduler.py", "slots.py") or code.co_name in ("submit", "check"):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        deed()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_step_leaves_the_other_texts_whole_or_told_of_it(small_checkpoint, tokenizer, alone):
    """And what is asked for next is written as ever. Every 23rd line is enough: steps are much alike."""
    sampling, stop = SAMPLINGS[1], STOPS[0]
    engine = ReferenceEngine(small_checkpoint, 2)
    for at in count(1, 23):
        generator = Generator(small_checkpoint, tokenizer, engine)
        beside = generator.write([Prompt(PROMPTS[2])], sampling=sampling, stop=stop, logprobs=2)
        pieces = [next(beside)]
        hit = interrupt(lambda: generator.generate(PROMPTS[0], samples=3, sampling=sampling, stop=stop), at)  # noqa: B023
        told = ""
        try:
            pieces += beside
        except Gpt2kitError as error:
            told = str(error)
        assert "given up" in told if hit and told else pieces[-1].completion == alone(PROMPTS[2], 0, sampling, stop)
        (again,) = generator.generate(PROMPTS[0], sampling=sampling, stop=stop, logprobs=2)
        assert again == alone(PROMPTS[0], 0, sampling, stop)
        assert not any(generator.free_engine()._ids.values())
        if not hit:
            break
    assert at > 300


# --- what is asked for reaches the text ---


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (StopConfig(until_sentence=True), "o."),
        (StopConfig(until_sentence=True, min_new_tokens=3, max_new_tokens=5), "o. o."),
        (StopConfig(stop=(" ",)), "o."),
        (StopConfig(stop=("o",), min_new_tokens=1), "o. "),
    ],
    ids=str,
)
def test_a_text_stops_where_it_is_to(small_checkpoint, tokenizer, stop, text):
    said = SamplingConfig(seed=1, forced_ids=tuple(id for letter in "o. o. o" for id in tokenizer.encode(letter)))
    (completion,) = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint)).generate(
        "the", sampling=said, stop=stop
    )
    assert completion.text == text


def test_a_text_that_cannot_be_written_says_why(small_checkpoint, tokenizer):
    nothing = SamplingConfig(seed=1, banned_ids=tuple(range(tokenizer.vocab_size)))
    with pytest.raises(Gpt2kitError, match="every token is banned"):
        Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint)).generate("the", sampling=nothing)


def test_a_banned_word_is_never_written(small_checkpoint, tokenizer):
    letters = SamplingConfig(seed=1, banned_words=tuple("abcdefghijklmnop"))
    generator = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint))
    (completion,) = generator.generate("the", sampling=letters, stop=StopConfig(max_new_tokens=45, min_new_tokens=45))
    assert not set(completion.text) & set("abcdefghijklmnop")
