import json
import math
from dataclasses import replace

import numpy as np
import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import Gpt2kitError, OutOfMemory, PromptTooLong, RequestError, WeightMismatch
from gpt2kit.generate.engine import Row
from gpt2kit.generate.generator import Generator
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.torch_engine import TorchEngine
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.vocabulary import read_vocabulary

PROMPT = "the cat"
SEEDED = SamplingConfig(seed=5)
SHORT = StopConfig(max_new_tokens=12, ignore_end=True)
LONG = StopConfig(max_new_tokens=45, ignore_end=True)  # further than the window of 32
ENGINES = pytest.mark.parametrize("engine", [ReferenceEngine, TorchEngine], ids=["reference", "torch"])


@pytest.fixture
def writer(small_checkpoint, tokenizer):
    """A new generator, by default on the reference engine with three slots."""

    def make(engine=ReferenceEngine, slots=3, checkpoint=small_checkpoint):
        return Generator(checkpoint, tokenizer, engine(checkpoint, slots))

    return make


# --- a text depends on nothing but model, prompt, sampling and seed ---


@pytest.fixture(scope="module")
def eight_alone(small_checkpoint, tokenizer):
    """Eight samples, written one after the other on an engine that holds one."""
    generator = Generator(small_checkpoint, tokenizer, ReferenceEngine(small_checkpoint, 1))
    return generator.generate(PROMPT, samples=8, sampling=SEEDED, stop=LONG)


@pytest.mark.slow
@pytest.mark.parametrize("slots", [3, 8])
def test_a_sample_is_the_same_bit_for_bit_in_any_batch(writer, eight_alone, slots):
    assert writer(slots=slots).generate(PROMPT, samples=8, sampling=SEEDED, stop=LONG) == eight_alone


def test_the_first_sample_is_the_same_alone_and_as_one_of_eight(writer, eight_alone):
    assert writer().generate(PROMPT, sampling=SEEDED, stop=LONG) == eight_alone[:1]


def test_a_neighbour_that_leaves_early_changes_nothing(writer, eight_alone):
    """Each sample is stopped at a different moment by a string of its own; the other one goes on."""
    stopped = replace(LONG, stop=(eight_alone[1].text[8:10],))
    beside = writer(slots=2).generate(PROMPT, samples=2, sampling=SEEDED, stop=stopped)
    (alone,) = writer(slots=1).generate(PROMPT, sampling=SEEDED, stop=stopped)
    assert beside[0] == alone


def test_samples_of_one_request_differ(eight_alone):
    assert len({completion.text for completion in eight_alone}) == 8


def test_another_seed_writes_another_text(writer):
    texts = {writer().generate(PROMPT, sampling=SamplingConfig(seed=seed), stop=SHORT)[0].text for seed in range(5)}
    assert len(texts) == 5


def test_a_seed_is_drawn_and_reported(writer):
    (drawn,) = writer().generate(PROMPT, stop=SHORT)
    (again,) = writer().generate(PROMPT, sampling=SamplingConfig(seed=drawn.seed), stop=SHORT)
    assert again == drawn


def test_the_torch_engine_writes_what_the_reference_writes_where_the_choice_is_clear(writer):
    """Greedy, as long as the likeliest token leads by more than 1e-3."""
    greedy, compared = SamplingConfig(temperature=0), 0
    for prompt in ("the", "cat", "床前", "🙂", "fog dog"):
        (expected,) = writer().generate(prompt, sampling=greedy, stop=SHORT, logprobs=2)
        (found,) = writer(TorchEngine).generate(prompt, sampling=greedy, stop=SHORT)
        leads = [first[1] - second[1] for first, second in expected.top]
        clear = next((at for at, lead in enumerate(leads) if lead < 1e-3), len(leads))
        assert found.ids[:clear] == expected.ids[:clear]
        compared += clear
    assert compared > 30


@ENGINES
def test_what_was_written_before_leaves_no_trace(writer, engine):
    generator = writer(engine)
    before = generator.generate(PROMPT, sampling=SEEDED, stop=SHORT)
    generator.generate("床前明月光", samples=4, stop=LONG)
    generator.score("the dog")
    assert generator.generate(PROMPT, sampling=SEEDED, stop=SHORT) == before


# --- the shape of a completion ---


def test_a_completion_has_the_text_of_its_ids(writer, tokenizer):
    (completion,) = writer().generate(PROMPT, sampling=SEEDED, stop=SHORT)
    whole = tokenizer.decode(completion.ids)
    assert completion.text == whole.removesuffix("\ufffd"), "the last token only begins a character"
    assert len(completion.ids) == 12


def test_every_token_has_the_log_probability_that_scoring_gives_it(writer, tokenizer):
    """Also at a temperature: log-probabilities are the model's own."""
    prompt = tokenizer.encode(PROMPT)
    hot = replace(SEEDED, temperature=1.7, top_k=30)
    (completion,) = writer().generate(PROMPT, sampling=hot, stop=SHORT)
    engine = writer().engine
    logits_TV = engine.step([Row(0, [*prompt, *completion.ids[:-1]], "all")])[len(prompt) - 1 :].astype(np.float64)
    normal_TV = logits_TV - np.log(np.exp(logits_TV).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(completion.logprobs, normal_TV[range(12), completion.ids], atol=1e-5)


def test_as_many_alternatives_come_as_were_asked_for(writer):
    (completion,) = writer().generate(PROMPT, sampling=SEEDED, stop=SHORT, logprobs=3)
    assert [len(entry) for entry in completion.top] == [3] * 12


def test_a_text_of_full_length_says_so(writer):
    (completion,) = writer().generate(PROMPT, sampling=SEEDED, stop=SHORT)
    assert completion.reason == "length"


def test_a_text_ends_at_the_end_token_and_does_not_show_it(writer, tokenizer):
    sure = replace(SEEDED, forced_ids=(*tokenizer.encode("dog"), tokenizer.end_id))
    (completion,) = writer().generate(PROMPT, sampling=sure)
    assert (completion.text, completion.reason) == ("dog", "stop")


def test_without_a_prompt_a_text_begins_after_the_end_token(writer, tokenizer):
    (nothing,) = writer().generate(sampling=SEEDED, stop=SHORT)
    (empty,) = writer().generate("", sampling=SEEDED, stop=SHORT)
    engine = ReferenceEngine(writer().checkpoint)
    first_V = engine.step([Row(0, [tokenizer.end_id])])[0].astype(np.float64)
    assert nothing == empty
    expected = first_V[nothing.ids[0]] - math.log(np.exp(first_V).sum())
    assert nothing.logprobs[0] == pytest.approx(expected, abs=1e-5)


def test_the_end_token_written_out_in_a_prompt_is_text(writer):
    (spelled,) = writer().generate("<|endoftext|>", sampling=SEEDED, stop=SHORT)
    (nothing,) = writer().generate(sampling=SEEDED, stop=SHORT)
    assert spelled.logprobs != nothing.logprobs


# --- streaming ---


@pytest.mark.parametrize("seed", range(4))
def test_a_streamed_text_is_the_text(writer, seed):
    sampling = SamplingConfig(seed=seed)
    (whole,) = writer().generate(PROMPT, sampling=sampling, stop=LONG)
    assert "".join(writer().stream(PROMPT, sampling=sampling, stop=LONG)) == whole.text


def test_a_stream_never_ends_a_piece_inside_a_character(writer, tokenizer):
    text = "疑是地上霜 🙂 猫 🐈"  # some learnt whole, some cut into bytes
    said = replace(SEEDED, forced_ids=tuple(tokenizer.encode(text)))
    stop = StopConfig(max_new_tokens=len(said.forced_ids))
    pieces = list(writer().stream(PROMPT, sampling=said, stop=stop))
    assert len(pieces) > 3
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == text


def test_the_pieces_of_every_sample_make_its_text(writer):
    texts, completions = [""] * 4, {}
    for piece in writer(slots=2).pieces(PROMPT, samples=4, sampling=SEEDED, stop=SHORT):
        texts[piece.sample] += piece.text
        if piece.completion:
            completions[piece.sample] = piece.completion.text
    assert texts == [completions[sample] for sample in range(4)]


@ENGINES
def test_leaving_a_stream_early_frees_the_engine(writer, engine):
    generator = writer(engine, slots=1)
    expected = generator.generate(PROMPT, sampling=SEEDED, stop=SHORT)
    left = generator.stream("the dog ate", stop=LONG)
    next(left)
    left.close()
    assert generator.generate(PROMPT, sampling=SEEDED, stop=SHORT) == expected


class Counting(ReferenceEngine):
    rows = 0

    def step(self, rows):
        self.rows += len(rows)
        return super().step(rows)


def test_nothing_is_thought_for_a_stream_that_was_left(writer):
    generator = writer(Counting)
    left = generator.stream("the dog ate", stop=LONG)
    next(left)
    left.close()
    generator.engine.rows = 0
    generator.generate(PROMPT, sampling=SEEDED, stop=SHORT)
    assert generator.engine.rows == 12


@ENGINES
def test_two_streams_at_once_do_not_disturb_each_other(writer, engine):
    generator = writer(engine)
    prompts = [PROMPT, "the dog ate"]
    expected = ["".join(generator.stream(prompt, sampling=SEEDED, stop=SHORT)) for prompt in prompts]
    streams = [generator.stream(prompt, sampling=SEEDED, stop=SHORT) for prompt in prompts]
    firsts = [next(stream) for stream in streams]
    assert [first + "".join(stream) for first, stream in zip(firsts, streams, strict=True)] == expected


def test_a_text_that_waits_while_another_is_written_stops_where_it_does_alone(writer):
    generator = writer()
    (whole,) = generator.generate(PROMPT, sampling=SEEDED, stop=SHORT)
    stopped = replace(SHORT, stop=(whole.text[3:5],))
    (expected,) = generator.generate(PROMPT, sampling=SEEDED, stop=stopped)
    waiting = generator.pieces(PROMPT, sampling=SEEDED, stop=stopped)
    first = next(waiting)
    generator.generate("the dog ate", sampling=SEEDED, stop=SHORT)
    assert [piece.completion for piece in [first, *waiting] if piece.completion] == [expected]


@ENGINES
def test_scoring_in_the_middle_of_a_stream_is_refused_and_harmless(writer, engine):
    generator = writer(engine)
    expected = "".join(generator.stream(PROMPT, sampling=SEEDED, stop=SHORT))
    stream = generator.stream(PROMPT, sampling=SEEDED, stop=SHORT)
    first = next(stream)
    with pytest.raises(RequestError, match="still being written"):
        generator.score("the dog")
    assert first + "".join(stream) == expected


@pytest.mark.parametrize("asked", [{"samples": 0}, {"samples": -1}, {"logprobs": -1}], ids=str)
def test_what_cannot_be_counted_is_refused(writer, asked):
    with pytest.raises(RequestError, match=r"were asked for"):
        writer().generate(PROMPT, **asked)


# --- stop strings ---


def test_a_text_ends_before_a_stop_string(writer, tokenizer):
    said = replace(SEEDED, forced_ids=tuple(tokenizer.encode("the dog ate the fog")))
    (completion,) = writer().generate(PROMPT, sampling=said, stop=replace(LONG, stop=("og f", "ate", "fog")))
    assert (completion.text, completion.reason) == ("the dog ", "stop")


def test_a_stop_string_is_never_streamed(writer, tokenizer):
    said = replace(SEEDED, forced_ids=tuple(tokenizer.encode("the dog ate the fog")))
    assert "".join(writer().stream(PROMPT, sampling=said, stop=replace(LONG, stop=("e th",)))) == "the dog at"


def test_nothing_is_thought_after_a_stop_string(writer, tokenizer):
    ids = tokenizer.encode("the dog ate")
    said = replace(SEEDED, forced_ids=tuple(ids))
    generator = writer(Counting)
    (completion,) = generator.generate(PROMPT, sampling=said, stop=replace(LONG, stop=("the dog ate",)))
    assert list(completion.ids) == ids
    assert generator.engine.rows == len(ids)


def test_half_a_stop_string_at_the_end_is_text(writer, tokenizer):
    said = replace(SEEDED, forced_ids=tuple(tokenizer.encode("the dog")))
    stop = StopConfig(max_new_tokens=len(said.forced_ids), stop=("dog food",))
    (completion,) = writer().generate(PROMPT, sampling=said, stop=stop)
    assert (completion.text, completion.reason) == ("the dog", "length")


# --- windows and vocabularies ---


def test_a_prompt_longer_than_the_window_goes_on_from_its_newest_half(writer, tokenizer):
    """The newest 16 of its tokens are all that the model of window 32 sees."""
    long = "the dog ate the fog; " * 20
    newest = tokenizer.decode(tokenizer.encode(long)[-16:])
    assert tokenizer.encode(newest) == tokenizer.encode(long)[-16:], "the cut must fall between words"
    (expected,) = writer().generate(newest, sampling=SamplingConfig(temperature=0), stop=SHORT)
    (found,) = writer().generate(long, sampling=SamplingConfig(temperature=0), stop=SHORT)
    assert found.ids == expected.ids


def test_a_prompt_that_may_not_slide_is_refused(writer):
    with pytest.raises(PromptTooLong, match="window of 32"):
        writer().generate("床前明月光" * 20, stop=StopConfig(overflow="error"))


def test_a_tokenizer_of_another_model_is_refused(make_checkpoint, tokenizer):
    small = make_checkpoint(tokenizer.vocab_size - 1)
    with pytest.raises(WeightMismatch, match=rf"{tokenizer.vocab_size} tokens.*only {small.config.vocab_size}"):
        Generator(small, tokenizer, ReferenceEngine(small))


def test_a_padded_vocabulary_never_speaks_its_padding(make_checkpoint, writer, tokenizer):
    """Three of four tokens are padding, so a text of 45 would hold some."""
    padded = make_checkpoint(4 * tokenizer.vocab_size)
    (completion,) = writer(checkpoint=padded).generate(PROMPT, sampling=SEEDED, stop=LONG)
    assert max(completion.ids) < tokenizer.vocab_size


def test_an_id_without_a_token_is_never_spoken(make_checkpoint, vocabulary_files, tokenizer):
    """Ids between the last merge and an end token placed further up have no bytes."""
    ids = json.loads(vocabulary_files["vocab.json"])
    high = ids | {"<|endoftext|>": 4 * tokenizer.vocab_size}
    files = {"vocab.json": json.dumps(high).encode(), "merges.txt": vocabulary_files["merges.txt"]}
    with_hole = ByteLevelBPE(read_vocabulary(files, "with a hole"))
    checkpoint = make_checkpoint(with_hole.vocab_size)
    (completion,) = Generator(checkpoint, with_hole, ReferenceEngine(checkpoint)).generate(
        PROMPT, sampling=SEEDED, stop=LONG
    )
    assert set(completion.ids) <= set(high.values())


def test_bans_of_the_caller_hold_beside_those_of_the_padding(make_checkpoint, writer, tokenizer):
    padded = make_checkpoint(2 * tokenizer.vocab_size)
    banned = tuple(range(0, tokenizer.vocab_size, 2))
    (completion,) = writer(checkpoint=padded).generate(PROMPT, sampling=replace(SEEDED, banned_ids=banned), stop=LONG)
    assert all(id % 2 and id < tokenizer.vocab_size for id in completion.ids)


# --- scoring and closing ---


def test_a_text_is_scored_from_its_first_token(writer, tokenizer):
    text = "the cat sat"
    assert writer().score(text).ids_T.tolist() == tokenizer.encode(text)


def test_a_generator_closes_its_engine_on_the_way_out(small_checkpoint, tokenizer):
    class Closable(ReferenceEngine):
        closed = False

        def close(self):
            self.closed = True

    with Generator(small_checkpoint, tokenizer, Closable(small_checkpoint)) as generator:
        assert not generator.engine.closed
    assert generator.engine.closed


@ENGINES
def test_a_closed_generator_says_so(writer, engine):
    generator = writer(engine)
    unfinished = generator.stream(PROMPT, stop=LONG)
    next(unfinished)
    generator.close()
    generator.close()
    for deed in (lambda: list(unfinished), lambda: generator.generate(PROMPT), lambda: generator.score("the dog")):
        with pytest.raises(RequestError, match="was closed"):
            deed()


class FailsOnce(ReferenceEngine):
    """Runs out of memory at its third step."""

    steps = 0

    def step(self, rows):
        self.steps += 1
        if self.steps == 3:
            raise OutOfMemory("at the third step")
        return super().step(rows)


def test_a_text_hears_of_a_fault_that_met_its_neighbour(writer):
    """It is the second that asks for the step that fails."""
    generator = writer(FailsOnce)
    first, second = (generator.pieces(PROMPT, sampling=SEEDED, stop=LONG) for _ in range(2))
    next(first)
    next(second)
    with pytest.raises(OutOfMemory):
        next(second)
    with pytest.raises(Gpt2kitError, match="this text was given up"):
        list(first)


def test_a_text_that_came_to_its_end_is_whole_although_its_neighbour_meets_a_fault(writer, tokenizer):
    generator = writer(FailsOnce)
    said = replace(SEEDED, forced_ids=(*tokenizer.encode("o"), *tokenizer.encode("g")))
    ended = generator.pieces(PROMPT, sampling=said, stop=replace(LONG, stop=("g",)))
    first = next(ended)
    with pytest.raises(OutOfMemory):
        generator.generate(PROMPT, sampling=SEEDED, stop=LONG)
    assert [first, *ended][-1].completion.text == "o"


def test_after_a_fault_the_next_text_is_whole(writer, eight_alone):
    generator = writer(FailsOnce)
    with pytest.raises(OutOfMemory):
        generator.generate(PROMPT, sampling=SEEDED, stop=LONG)
    assert generator.generate(PROMPT, sampling=SEEDED, stop=LONG) == eight_alone[:1]
