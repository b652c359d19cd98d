import json
import re
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.data.batches import Corpus
from gpt2kit.errors import ConfigError
from gpt2kit.formats import huggingface
from gpt2kit.jobs.finetune import Plan
from gpt2kit.jobs.load import load
from gpt2kit.legacy.old_training import OldSamples, TrainingLines
from gpt2kit.progress import Progress
from gpt2kit.runs import Run

RUN = Run(Path("checkpoint/run1"))


def plan(done=0, set_aside=None):
    return Plan("models/124M", 0, 800, 1, 0, 64, "cpu", done, 10, None, (), set_aside)


def lines(**settings):
    return TrainingLines(RUN, **{"print_every": 1, **settings})


@pytest.fixture
def printed(capsys):
    """What was printed, with every time as 0.00."""
    return lambda: re.sub(r"\| \d+\.\d\d\]", "| 0.00]", capsys.readouterr().out).splitlines()


@pytest.fixture
def begun(here, tiny_checkpoint):
    """A run as `finetune` has it before the first step."""
    RUN.directory.mkdir(parents=True)
    huggingface.write_surroundings(tiny_checkpoint, RUN.directory)


def learnt(step, loss=1.0):
    return {"event": "train", "step": step, "loss": loss}


# --- lines ---


def test_before_the_first_step_stands_what_is_trained_on_what(begun, printed):
    lines().announce(plan())
    assert printed() == [
        "Loading checkpoint models/124M",
        "Loading dataset...",
        "dataset has 800 tokens",
        "Training...",
    ]


def test_a_run_that_goes_on_names_the_checkpoint_that_it_saved(begun, printed):
    lines().announce(plan(done=7))
    assert printed()[0] == "Loading checkpoint checkpoint/run1/model-7"


def test_a_new_beginning_says_where_the_old_run_is(begun, capsys):
    lines().announce(plan(set_aside=Path("checkpoint/run1-1")))
    assert capsys.readouterr().err == "begins again; what the run had is kept in checkpoint/run1-1\n"


def test_a_run_has_what_old_programs_look_for_in_it(begun, golden):
    lines().announce(plan())
    assert json.loads((RUN.directory / "hparams.json").read_bytes()) == {
        **{"n_vocab": 320, "n_ctx": 56, "n_embd": 40, "n_head": 4, "n_layer": 3},
    }
    vocabulary = json.loads((golden / "hf-safetensors" / "vocab.json").read_bytes())
    assert json.loads((RUN.directory / "encoder.json").read_bytes()) == vocabulary
    assert (RUN.directory / "vocab.bpe").read_text("utf-8").startswith("#version")


def test_a_model_that_old_programs_cannot_run_is_trained_with_a_warning(here, golden):
    RUN.directory.mkdir(parents=True)
    huggingface.write_surroundings(huggingface.read(golden / "hf-variants" / "untied"), RUN.directory)
    with pytest.warns(UserWarning, match="run1: is not for old programs: .*head of its own"):
        lines().announce(plan())


def test_the_average_forgets_a_hundredth_a_line(printed):
    told = lines()
    for step, loss in enumerate([4.0, 2.0, 3.0], 1):
        told.on_event(learnt(step, loss))
    # (4 * 0.99 + 2) / (0.99 + 1) = 2.99..., (5.96 * 0.99 + 3) / (1.99 * 0.99 + 1) = 2.99...
    assert printed() == [
        "[1 | 0.00] loss=4.00 avg=4.00",
        "[2 | 0.00] loss=2.00 avg=2.99",
        "[3 | 0.00] loss=3.00 avg=3.00",
    ]


def test_steps_between_two_lines_are_not_told_and_not_averaged(printed):
    told = lines(print_every=2)
    for step, loss in enumerate([9.0, 4.0, 9.0, 2.0], 1):
        told.on_event(learnt(step, loss))
    assert printed() == ["[2 | 0.00] loss=4.00 avg=4.00", "[4 | 0.00] loss=2.00 avg=2.99"]


def test_a_checkpoint_is_told_by_its_old_name(printed):
    lines().on_event({"event": "save", "step": 1000})
    assert printed() == ["Saving checkpoint/run1/model-1000"]


@pytest.mark.parametrize(("step", "counter"), [(0, 1), (2, 2)])
def test_a_validation_is_told_with_its_loss(printed, step, counter):
    lines().on_event({"event": "validation", "step": step, "loss": 5.125})
    assert printed() == [f"[{counter} | 0.00] validation loss = 5.12"]


def test_a_validation_is_announced_once(printed):
    told = lines()
    for done in (0, 1):
        told.report(Progress("validate", done, 2, "window"))
    assert printed() == ["Calculating validation loss..."]


@pytest.mark.parametrize(
    ("print_every", "save_every", "expected"),
    [
        (1, 4, ["[4 | 0.00] loss=1.00 avg=1.00", "Saving checkpoint/run1/model-4", "sample"]),
        (1, 5, ["[4 | 0.00] loss=1.00 avg=1.00", "sample", "Saving checkpoint/run1/model-4"]),
        (3, 4, ["Saving checkpoint/run1/model-4", "sample"]),
        (3, 5, ["sample", "Saving checkpoint/run1/model-4"]),
    ],
)
def test_a_sample_can_be_shown_behind_the_lines_of_its_step(printed, print_every, save_every, expected):
    told = lines(print_every=print_every, save_every=save_every)
    told.show_last(4, "sample")
    told.on_event(learnt(4))
    told.on_event({"event": "save", "step": 4})
    assert printed() == expected


# --- samples ---


@pytest.fixture(scope="module")
def generator(tiny_checkpoint):
    with load(tiny_checkpoint, engine="reference") as generator:
        yield generator


class Tokens:
    """A text of one token, again and again."""

    total, ends = 50, np.array([50])

    def __init__(self, token):
        self.token = token

    def take(self, positions):
        return np.full(positions.shape, self.token)


def corpus(token):
    return Corpus(Tokens(token), np.array([[0, 50]]), 8)


def samples(**settings):
    usual = {"number": 1, "length": 5, "sampling": SamplingConfig(top_k=1), "every": 2, "last": 10, "ahead": 0}
    return OldSamples(RUN, **{**usual, "stop_asked": lambda: False, **settings})


def stored(here):
    return {path.name: path.read_text("utf-8") for path in (here / "samples" / "run1").iterdir()}


def test_a_sample_goes_on_from_a_token_of_the_text(here, generator):
    [token] = generator.tokenizer.encode("T")
    samples()(generator, corpus(token), 2)
    text = stored(here)["samples-2"]
    assert text.startswith("======== SAMPLE 1 ========\nT")


def test_a_token_that_is_half_a_character_does_no_harm(here, generator):
    [half, *_] = generator.tokenizer.encode("\N{SNOWMAN}")
    assert generator.tokenizer.decode([half]) == "\ufffd"
    assert samples()(generator, corpus(half), 2)
    assert stored(here)["samples-2"].startswith("======== SAMPLE 1 ========\n\ufffd")


def test_the_file_holds_all_texts_and_the_console_shows_the_last(here, generator, capsys):
    samples(number=3, sampling=SamplingConfig())(generator, corpus(40), 2)
    text = stored(here)["samples-2"]
    *_, last = parts = re.split(r"======== SAMPLE \d ========\n", text)
    assert len(parts) == 4
    assert [f"======== SAMPLE {n} ========" in text for n in (1, 2, 3)] == [True] * 3
    assert capsys.readouterr().out == f"======== SAMPLE 3 ========\n{last}\n"


@pytest.mark.parametrize(("every", "number", "step"), [(2, 1, 3), (2, 1, 10), (0, 1, 4)])
def test_no_sample_is_due_between_and_at_the_end(here, generator, every, number, step):
    assert samples(every=every, number=number)(generator, corpus(40), step) is None
    assert not (here / "samples").exists()


@pytest.mark.parametrize("nothing", [{"number": 0}, {"length": 0}], ids=str)
def test_samples_of_nothing_are_refused_before_the_training(here, nothing):
    with pytest.raises(ConfigError, match=r"sample_(num|length) must be 1 or more, got 0"):
        samples(**nothing)


def test_the_file_is_named_after_the_programs_own_count(here, generator):
    samples(ahead=1)(generator, corpus(40), 4)
    assert set(stored(here)) == {"samples-5"}


def test_a_sample_is_given_up_when_the_training_is_interrupted(here, generator, capsys):
    assert samples(stop_asked=lambda: True, says="Generating samples...")(generator, corpus(40), 2) is None
    assert capsys.readouterr().out == "Generating samples...\n"
    assert not (here / "samples").exists()
