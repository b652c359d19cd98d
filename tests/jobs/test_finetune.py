import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt2kit.config.toml_file import read_toml
from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import ConfigError, DataError, ModelNotFound, RunLocked
from gpt2kit.jobs.finetune import finetune
from gpt2kit.jobs.load import load
from gpt2kit.runs import Run

TEXT = "The cat sat on the mat. The dog ate the fog, and then the cat ate the dog; so it goes.\n" * 20
SHORT = TrainingConfig(
    steps=20, batch_size=2, window=16, learning_rate=1e-3, warmup_steps=5, print_every=5, validate_every=10
)
LONG = replace(SHORT, steps=100, save_every=50)


def stop_after(steps):
    """Asks to stop once so many steps are done."""
    done = iter(range(1, steps + 1))
    return lambda: next(done) == steps


def events_of(run):
    """Every event of the run but its clock times."""
    lines = run.metrics_path.read_text(encoding="utf-8").splitlines()
    clocks = ("time", "tokens_per_second")
    return [{key: value for key, value in json.loads(line).items() if key not in clocks} for line in lines]


def newest_files(run):
    """Weights and moments of the newest step, byte for byte."""
    place = run.step_directory(run.latest())
    return {name: (place / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}


@pytest.fixture(autouse=True)
def text(here):
    """What the runs learn: about 800 tokens."""
    (here / "text.txt").write_text(TEXT, encoding="utf-8")


# --- a run ---


def test_a_run_learns(here, model):
    first = finetune(["text.txt"], model, training=replace(SHORT, steps=1), run_name="first")
    last = finetune(["text.txt"], model, training=replace(SHORT, steps=60))
    assert last.loss < first.loss - 1
    assert last.validation_loss < first.validation_loss - 1


def test_a_run_directory_opens_in_transformers(here, model, transformers):
    outcome = finetune(["text.txt"], model, training=SHORT)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(outcome.directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(outcome.directory)
    ids = tokenizer("The cat").input_ids
    with torch.no_grad():
        logprobs_TV = torch.log_softmax(theirs(torch.tensor([[tokenizer.eos_token_id, *ids[:-1]]])).logits[0], -1)
    with load("run1", engine="reference") as ours:
        scores = ours.score("The cat")
    assert scores.ids_T.tolist() == ids
    np.testing.assert_allclose(scores.logprobs_T, logprobs_TV[range(len(ids)), ids], atol=1e-4)


def test_a_run_directory_has_what_its_layout_promises(here, model):
    directory = finetune(["text.txt"], model, training=SHORT).directory
    assert directory.as_posix() == "checkpoint/run1"
    expected = {"config.json", "vocab.json", "merges.txt", "model.safetensors", "run.toml", "counter", "metrics.jsonl"}
    assert expected | {"loss.png", "latest", "best", "steps"} <= {path.name for path in directory.iterdir()}


def test_the_model_it_starts_from_stays_as_it_was(here, model):
    before = (model / "model.safetensors").read_bytes()
    finetune(["text.txt"], model, training=SHORT)
    assert (model / "model.safetensors").read_bytes() == before


def test_a_run_can_start_from_another_run(here, model):
    finetune(["text.txt"], model, training=SHORT)
    plans = []
    finetune(["text.txt"], "run1", run_name="run2", training=SHORT, announce=plans.append)
    assert "run1" in plans[0].origin
    assert Run.named("run1").latest() == 20


def test_settings_are_written_beside_the_model(here, model):
    finetune(["text.txt"], model, training=SHORT)
    settings = read_toml(Run.named("run1").directory / "run.toml")
    assert settings["dataset"] == ["text.txt"]
    assert settings["run_name"] == "run1"
    assert (settings["training"]["steps"], settings["training"]["learning_rate"]) == (20, 1e-3)


def test_the_plan_counts_what_is_learnt_and_what_is_held_out(here, model, transformers):
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(model)
    tokens = len(tokenizer((here / "text.txt").read_text(encoding="utf-8")).input_ids) + 1  # the end token
    plans = []
    finetune(["text.txt"], model, training=replace(SHORT, validation_share=0.25, steps=1), announce=plans.append)
    assert plans[0].held_out == round(tokens / 4)
    assert plans[0].tokens == tokens - round(tokens / 4)
    assert (plans[0].window, plans[0].done) == (16, 0)


def test_holding_out_nothing_measures_nothing(here, model):
    outcome = finetune(["text.txt"], model, training=replace(SHORT, validation_share=0))
    assert outcome.validation_loss is None


@pytest.mark.parametrize(("asked", "window"), [(0, 56), (30, 30), (1000, 56)])
def test_the_window_is_the_models_unless_a_shorter_one_is_asked_for(here, model, asked, window):
    plans = []
    finetune(["text.txt"], model, training=replace(SHORT, window=asked, steps=1), announce=plans.append)
    assert plans[0].window == window


def test_a_short_text_shortens_the_window(here, model):
    """Seven bytes that the vocabulary cuts into single ones, and the end token: a window of 7."""
    (here / "short.txt").write_bytes(b"~^~^~^~")
    plans = []
    finetune(["short.txt"], model, training=replace(SHORT, validation_share=0, window=0), announce=plans.append)
    assert (plans[0].tokens, plans[0].window) == (8, 7)


def test_a_text_too_short_to_learn_from_is_refused(here, model):
    (here / "short.txt").write_bytes(b"~")
    with pytest.raises(DataError, match="only 2 tokens"):
        finetune(["short.txt"], model, training=replace(SHORT, validation_share=0.5))


# --- going on ---


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, model):
    """Train a run in a directory of its own; a second call with the same name goes on with it."""
    place = tmp_path_factory.mktemp("runs")
    (place / "text.txt").write_text(TEXT, encoding="utf-8")

    def go(name, **how):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            return Run(place / "checkpoint" / name), finetune(["text.txt"], model, run_name=name, **how)

    return go


@pytest.fixture(scope="module")
def whole(elsewhere):
    """A run of 100 steps without a break."""
    return elsewhere("whole", training=LONG)[0]


@pytest.fixture(scope="module")
def broken(elsewhere):
    """A run of 100 steps, interrupted after 50, and the outcomes of its two parts."""
    _, first = elsewhere("broken", training=LONG, stop_asked=stop_after(50))
    run, second = elsewhere("broken", training=LONG)
    return run, first, second


class PowerCut(BaseException):
    """Nothing catches it."""


def die_at(step):
    """A report that ends everything once this step is reported."""

    def report(progress):
        if progress.task == "train" and progress.done >= step:
            raise PowerCut

    return report


def test_an_interrupted_run_says_so(broken):
    _, first, second = broken
    assert (first.interrupted, first.step, first.new_steps) == (True, 50, 50)
    assert (second.interrupted, second.step, second.new_steps) == (False, 100, 50)


def test_an_interrupted_run_ends_with_the_same_weights_and_moments_bit_for_bit(whole, broken):
    assert newest_files(broken[0]) == newest_files(whole)


def test_an_interrupted_run_tells_the_same_story_without_duplicates(whole, broken):
    told = [event for event in events_of(broken[0]) if event["event"] != "save"]
    assert told == [event for event in events_of(whole) if event["event"] != "save"]


def test_an_interrupted_run_remembers_all_its_saves(whole, broken):
    assert broken[0].metrics("save")[0]["step"] == whole.metrics("save")[0]["step"] == 50
    assert len(broken[0].metrics("save")) == len(whole.metrics("save"))


def test_an_interrupted_run_finds_the_same_best_step(whole, broken):
    assert broken[0].best() == whole.best()
    assert broken[0].state(100)["best_validation_loss"] == whole.state(100)["best_validation_loss"]


@pytest.mark.slow
def test_a_run_that_died_after_its_last_snapshot_ends_the_same(whole, here, model):
    """Killed at step 75: everything after the snapshot at 50 is done and told again."""
    with pytest.raises(PowerCut):
        finetune(["text.txt"], model, training=LONG, report=die_at(75))
    finetune(["text.txt"], model, training=LONG)
    assert newest_files(Run.named("run1")) == newest_files(whole)
    assert [entry["step"] for entry in Run.named("run1").metrics("validation")] == [*range(10, 101, 10)]


@pytest.mark.slow
@pytest.mark.parametrize("torn", ["", '{"event": "tra'], ids=["between two lines", "inside a line"])
def test_a_run_that_died_before_its_first_snapshot_starts_again_from_nothing(whole, here, model, torn):
    run = Run.named("run1")
    with pytest.raises(PowerCut):
        finetune(["text.txt"], model, training=LONG, report=die_at(30))
    with run.metrics_path.open("a", encoding="utf-8") as file:
        file.write(torn)
    finetune(["text.txt"], model, training=LONG)
    assert newest_files(run) == newest_files(whole)
    assert events_of(run) == events_of(whole)


@pytest.mark.slow
def test_a_run_cut_off_before_it_named_its_newest_step_ends_the_same(whole, here, model):
    """As a power cut between two renames leaves it: the run's model is step 50's already, `latest` still says 25."""
    finetune(["text.txt"], model, run_name="cut", training=replace(LONG, save_every=25), stop_asked=stop_after(50))
    cut = Run.named("cut")
    assert cut.steps() == [25, 50]
    (cut.directory / "latest").write_text("000000025\n", encoding="utf-8")
    finetune(["text.txt"], model, run_name="cut", training=LONG)
    assert newest_files(cut) == newest_files(whole)


def test_a_finished_run_is_left_as_it_is(here, model):
    first = finetune(["text.txt"], model, training=SHORT)
    files, events = newest_files(Run.named("run1")), events_of(Run.named("run1"))
    again = finetune(["text.txt"], model, training=SHORT)
    assert (again.step, again.new_steps, again.interrupted) == (20, 0, False)
    assert (again.loss, again.validation_loss) == (first.loss, first.validation_loss)
    assert (newest_files(Run.named("run1")), events_of(Run.named("run1"))) == (files, events)


def test_asking_to_stop_at_the_last_step_interrupts_nothing(here, model):
    outcome = finetune(["text.txt"], model, training=SHORT, stop_asked=stop_after(20))
    assert (outcome.step, outcome.interrupted) == (20, False)


def test_a_finished_run_can_be_asked_for_more(here, model):
    finetune(["text.txt"], model, training=SHORT)
    more = finetune(["text.txt"], model, training=replace(SHORT, steps=30))
    assert (more.step, more.new_steps) == (30, 10)


def test_a_run_that_goes_on_needs_no_model(here, model):
    finetune(["text.txt"], model, training=SHORT)
    more = finetune(["text.txt"], "no-such-model", training=replace(SHORT, steps=21))
    assert more.step == 21


def test_a_finished_run_keeps_its_settings_whatever_is_asked(here, model):
    finetune(["text.txt"], model, training=SHORT)
    before = (here / "checkpoint" / "run1" / "run.toml").read_bytes()
    finetune(["text.txt"], "another-model", training=replace(SHORT, steps=4))
    assert (here / "checkpoint" / "run1" / "run.toml").read_bytes() == before


def test_a_run_that_goes_on_remembers_the_model_it_started_from(here, model):
    finetune(["text.txt"], model, training=SHORT)
    finetune(["text.txt"], "another-model", training=replace(SHORT, steps=21))
    settings = read_toml(here / "checkpoint" / "run1" / "run.toml")
    assert (settings["model"], settings["training"]["steps"]) == (str(model), 21)


# --- refusals ---


@pytest.mark.parametrize(("dataset", "start"), [("nothing.txt", None), ("text.txt", "no-such-model")])
def test_what_is_refused_leaves_no_run(here, model, dataset, start):
    with pytest.raises((DataError, ModelNotFound)):
        finetune([dataset], start or model, training=SHORT)
    assert not (here / "checkpoint").exists()


def test_a_run_in_training_is_not_trained_twice(here, model):
    with Run.named("run1").locked(), pytest.raises(RunLocked, match="run1"):
        finetune(["text.txt"], model, training=SHORT)


def test_an_unknown_model_leaves_no_run_behind(here):
    with pytest.raises(ModelNotFound, match="'nowhere'"):
        finetune(["text.txt"], "nowhere", training=SHORT)
    assert not (here / "checkpoint" / "run1").exists()


def test_a_missing_text_leaves_no_run_behind(here, model):
    with pytest.raises(DataError, match=r"nothing\.txt"):
        finetune(["nothing.txt"], model, training=SHORT)
    assert not (here / "checkpoint" / "run1").exists()


def test_no_text_at_all_is_refused(here, model):
    with pytest.raises(DataError, match="no text"):
        finetune([], model, training=SHORT)


def test_a_run_name_is_no_path(here, model):
    with pytest.raises(ConfigError, match=r"'\.\./run1'"):
        finetune(["text.txt"], model, run_name="../run1", training=SHORT)
