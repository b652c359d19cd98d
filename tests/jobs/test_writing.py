from codecs import getincrementaldecoder
from contextlib import closing
from dataclasses import fields

import pytest

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import ConfigError, PromptTooLong, RequestError
from gpt2kit.generate.generator import Generator
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.jobs.load import load
from gpt2kit.jobs.writing import Writing, settings_of
from gpt2kit.tokenizer.open import open_tokenizer

GREEDY = SamplingConfig(temperature=0)


@pytest.fixture(scope="session")
def generator(model):
    return load(model, engine="reference")


@pytest.fixture
def begin(generator):
    """A new text; answers of eight tokens."""

    def begin(sampling=GREEDY, **stop):
        return Writing(generator, sampling, StopConfig(**{"max_new_tokens": 8, "ignore_end": True, **stop}))

    return begin


@pytest.fixture
def continued(generator):
    """The whole characters of what `Generator.generate` makes of a prompt, sample number `sample`."""

    def continued(prompt, sampling=GREEDY, sample=0):
        stop = StopConfig(max_new_tokens=8, ignore_end=True)
        ids = generator.generate(prompt, samples=sample + 1, sampling=sampling, stop=stop)[sample].ids
        return getincrementaldecoder("utf-8")("replace").decode(b"".join(map(generator.tokenizer.bytes_of, ids)))

    return continued


def all_of(answer):
    return "".join(answer)


# --- the text grows ---


def test_an_entry_is_continued(begin, continued):
    writing = begin()
    assert all_of(writing.go_on("The cat")) == continued("The cat")
    assert writing.text == "The cat" + continued("The cat")


def test_a_later_entry_begins_a_line_and_all_before_it_is_its_prompt(begin, continued):
    writing = begin()
    all_of(writing.go_on("The cat"))
    prompt = writing.text + "\nThe dog"
    assert all_of(writing.go_on("The dog")) == continued(prompt)
    assert writing.text == prompt + continued(prompt)


def test_where_a_line_has_just_ended_no_second_line_end_is_added(begin):
    writing = begin(max_new_tokens=1)
    writing.set("forced_ids", str(writing.generator.tokenizer.encode("\n")))
    all_of(writing.go_on("The cat"))
    all_of(writing.go_on("The dog"))
    assert writing.text == "The cat\nThe dog\n"


def test_an_empty_entry_lets_the_model_go_on_where_the_text_ends(begin, continued):
    writing = begin()
    all_of(writing.go_on("The cat"))
    before = writing.text
    all_of(writing.go_on(""))
    assert writing.text == before + continued(before)


def test_a_text_can_start_from_nothing(begin, continued):
    writing = begin()
    assert all_of(writing.go_on("")) == continued(None) == writing.text


def test_an_answer_that_is_closed_stays_as_far_as_it_came(begin, continued):
    writing = begin()
    with closing(writing.go_on("The cat")) as answer:
        seen = next(answer) + next(answer)
    assert writing.text == "The cat" + seen
    assert continued("The cat").startswith(seen)


def test_a_text_longer_than_the_window_goes_on(begin):
    writing = begin()
    for _ in range(12):
        all_of(writing.go_on("The cat sat"))
    assert writing.count_tokens() > 2 * 56


def test_a_character_cut_in_the_middle_is_left_to_the_next_answer(begin):
    """A cat has three bytes, and no token here has more than one of them."""
    writing = begin(max_new_tokens=2)
    cat = writing.generator.tokenizer.encode("猫")
    assert len(cat) == 3
    writing.set("forced_ids", str(cat))
    assert all_of(writing.go_on("The ")) == ""
    writing.set("max_new_tokens", "3")
    assert all_of(writing.go_on("")) == "猫"
    assert writing.text == "The 猫"


# --- and shrinks ---


def test_undo_takes_back_one_entry_at_a_time(begin):
    writing, states = begin(), [""]
    for entry in ("The cat", "", "The dog"):
        all_of(writing.go_on(entry))
        states.append(writing.text)
    while states:
        assert writing.text == states.pop()
        if states:
            writing.undo()


def test_a_new_text_is_empty(begin):
    writing = begin()
    all_of(writing.go_on("The cat"))
    writing.begin_anew()
    assert writing.text == ""


@pytest.mark.parametrize("act", [Writing.undo, lambda writing: all_of(writing.retry())], ids=["undo", "retry"])
def test_where_nothing_was_written_there_is_nothing_to_take_back(begin, act):
    with pytest.raises(RequestError, match="nothing has been written yet"):
        act(begin())


# --- another try ---


def test_every_retry_with_a_fixed_seed_is_the_next_sample(begin, continued):
    writing, seeded = begin(SamplingConfig(seed=7)), SamplingConfig(seed=7)
    assert all_of(writing.go_on("The cat")) == continued("The cat", seeded, 0)
    for sample in (1, 2):
        assert all_of(writing.retry()) == continued("The cat", seeded, sample)
        assert writing.text == "The cat" + continued("The cat", seeded, sample)


def test_a_seed_that_was_drawn_gives_the_answer_again(begin, continued):
    writing = begin(SamplingConfig())
    all_of(writing.go_on("The cat"))
    for _ in range(2):
        answer = all_of(writing.retry())
        assert continued("The cat", SamplingConfig(seed=writing.last.seed)) == answer


def test_retry_leaves_what_was_before_the_last_entry(begin, continued):
    writing = begin(SamplingConfig(seed=7))
    all_of(writing.go_on("The cat"))
    before = writing.text
    all_of(writing.go_on("The dog"))
    all_of(writing.retry())
    assert writing.text == f"{before}\nThe dog" + continued(f"{before}\nThe dog", SamplingConfig(seed=7), 1)


# --- errors leave the text ---


def test_an_entry_that_is_refused_leaves_the_text(begin):
    writing = begin()
    all_of(writing.go_on("The cat"))
    before = writing.text
    writing.set("overflow", "error")
    with pytest.raises(PromptTooLong):
        all_of(writing.go_on("The dog " * 50))
    writing.set("max_new_tokens", "57")
    with pytest.raises(PromptTooLong):
        all_of(writing.retry())
    assert writing.text == before


class ExhaustedEngine(ReferenceEngine):
    """Has memory for some steps."""

    steps = 12

    def step(self, rows):
        self.steps -= 1
        if self.steps < 0:
            raise MemoryError
        return super().step(rows)


def test_a_setting_answers_to_its_old_name_too(begin):
    writing = begin()
    assert writing.set("length", "3") == "max_new_tokens"
    assert writing.stop.max_new_tokens == 3


def test_an_answer_that_fails_half_way_leaves_the_text(tiny_checkpoint: Checkpoint):
    tokenizer = open_tokenizer(tiny_checkpoint.tokenizer_files, "tiny")
    generator = Generator(tiny_checkpoint, tokenizer, ExhaustedEngine(tiny_checkpoint, slots=1))
    writing = Writing(generator, GREEDY, StopConfig(max_new_tokens=8, ignore_end=True))
    all_of(writing.go_on("The cat"))
    before, seen = writing.text, []
    with pytest.raises(MemoryError):
        seen.extend(writing.go_on("The dog"))
    assert seen, "it failed before it began"
    assert writing.text == before


# --- saving ---


def test_the_text_is_saved_as_it_is_in_utf_8(begin, here):
    writing = begin(max_new_tokens=1)
    all_of(writing.go_on("猫 and 🙂"))
    writing.save(here / "story.txt")
    assert (here / "story.txt").read_bytes() == writing.text.encode()


# --- settings ---


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [
        ("temperature", "0.9", 0.9),
        ("temperature", "1", 1.0),
        ("top_k", "40", 40),
        ("top-k", "40", 40),
        ("chain", "openai", "openai"),
        ("chain", '"openai"', "openai"),
        ("overflow", "stop", "stop"),
        ("ignore_end", "false", False),
        ("stop", '["END", "\\n\\n"]', ("END", "\n\n")),
        ("stop", "END", ("END",)),
        ("stop", '"\\n"', ("\n",)),
        ("stop", "none", ()),
        ("stop", '["none"]', ("none",)),
        ("stop_ids", "5", (5,)),
        ("logit_bias", "{ 5 = -1.5, 6 = 2 }", {5: -1.5, 6: 2.0}),
        ("logit_bias", "none", {}),
        ("seed", "8", 8),
        ("seed", "none", None),
    ],
)
def test_a_setting_takes_toml_and_plain_words(begin, name, words, value):
    writing = begin(SamplingConfig(seed=7, logit_bias={1: 1.0}), stop=("x",))
    expected = {**writing.settings(), name.replace("-", "_"): value}
    writing.set(name, words)
    assert writing.settings() == expected


@pytest.mark.parametrize(
    ("name", "words", "problem"),
    [
        ("temprature", "1", "no setting 'temprature'; did you mean 'temperature'?"),
        ("frobnicate", "1", "no setting 'frobnicate'"),
        ("temperature", "hot", "temperature: found 'hot', expected a number"),
        ("temperature", "-1", "temperature must be 0 or more, got -1"),
        ("temperature", "none", "temperature: found 'none', expected a number"),
        ("temperature", "nan", "must be a finite number"),
        ("top_k", "1.5", "top_k: found 1.5, expected a whole number"),
        ("chain", "opanai", "found 'opanai', expected one of 'standard', 'openai'"),
        ("stop", '["END"', r'\["END": not TOML'),
        ("stop", '""', "a stop string must not be empty"),
        ("max_new_tokens", "0", "max_new_tokens must be 1 or more"),
    ],
)
def test_a_wrong_setting_is_one_line_and_changes_nothing(begin, name, words, problem):
    writing = begin()
    before = writing.settings()
    with pytest.raises(ConfigError, match=problem) as raised:
        writing.set(name, words)
    assert "\n" not in str(raised.value)
    assert writing.settings() == before


def test_a_setting_holds_from_the_next_answer_on(begin, generator):
    writing = begin(SamplingConfig())
    writing.set("temperature", "0")
    writing.set("max_new_tokens", "3")
    expected = generator.generate("The cat", sampling=GREEDY, stop=StopConfig(max_new_tokens=3, ignore_end=True))
    assert all_of(writing.go_on("The cat")) == expected[0].text


def test_every_setting_has_a_name_of_its_own():
    names = [field.name for kind in (SamplingConfig, StopConfig) for field in fields(kind)]
    assert sorted(settings_of(SamplingConfig(), StopConfig())) == sorted(names)
