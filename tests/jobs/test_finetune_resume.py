"""A run that goes on: as if nothing had happened, from another step, from a torn one, or from the beginning."""

import io
import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2kit.config.toml_file import read_toml
from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import ModelNotFound
from gpt2kit.jobs.finetune import finetune
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:run1 goes on with")]

TEXT = "The cat sat on the mat. The dog ate the fog, and then the cat ate the dog; so it goes.\n" * 20
SHORT = TrainingConfig(
    steps=20, batch_size=2, window=16, learning_rate=1e-3, warmup_steps=5, print_every=5, validate_every=10
)
LONG = replace(SHORT, steps=100, save_every=50, sample_every=0)


def stop_after(steps):
    """Asks to stop once so many steps are done."""
    done = iter(range(1, steps + 1))
    return lambda: next(done) == steps


class PowerCut(BaseException):
    """Nothing catches it."""


def die_at(step):
    """A report that ends everything once this step is reported."""

    def report(progress):
        if progress.task == "train" and progress.done >= step:
            raise PowerCut

    return report


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


@pytest.fixture
def copied(whole, here):
    """A copy of that run, as run1."""
    shutil.copytree(whole.directory, here / "checkpoint" / "run1")
    return Run.named("run1")


# --- the same command again ---


@pytest.fixture(scope="module")
def broken(elsewhere):
    """A run of 100 steps, interrupted after 50, and the outcomes of its two parts."""
    _, first = elsewhere("broken", training=LONG, stop_asked=stop_after(50))
    run, second = elsewhere("broken", training=LONG)
    return run, first, second


def test_an_interrupted_run_says_so(broken):
    _, first, second = broken
    assert (first.interrupted, first.step, first.new_steps) == (True, 50, 50)
    assert (second.interrupted, second.step, second.new_steps) == (False, 100, 50)


def test_an_interrupted_run_ends_with_the_same_weights_and_moments_bit_for_bit(whole, broken):
    assert newest_files(broken[0]) == newest_files(whole)


def test_an_interrupted_run_tells_the_same_story(whole, broken):
    assert events_of(broken[0]) == events_of(whole)
    assert [entry["step"] for entry in whole.metrics("save")] == [50, 100]


def test_an_interrupted_run_finds_the_same_best_step(whole, broken):
    assert broken[0].best() == whole.best()
    assert broken[0].state(100)["best"] == whole.state(100)["best"]


def test_a_run_that_died_after_its_last_snapshot_ends_the_same(whole, here, model):
    """Killed at step 75: everything after the snapshot at 50 is done and told again."""
    with pytest.raises(PowerCut):
        finetune(["text.txt"], model, training=LONG, report=die_at(75))
    finetune(["text.txt"], model, training=LONG)
    assert newest_files(Run.named("run1")) == newest_files(whole)
    assert events_of(Run.named("run1")) == events_of(whole)


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


@pytest.mark.parametrize("first", [True, False], ids=["the first", "another"])
def test_a_run_cut_off_before_it_named_a_snapshot_makes_it_again(whole, copied, model, first):
    """As a kill between two renames leaves it: the step is there, `latest` does not say so yet."""
    if first:
        shutil.rmtree(copied.directory / "steps" / "000000050")
        (copied.directory / "latest").unlink()
        (copied.directory / "best").unlink()
    else:
        (copied.directory / "latest").write_text("000000050\n", encoding="utf-8")
    finetune(["text.txt"], model, training=LONG)
    assert newest_files(copied) == newest_files(whole)
    assert events_of(copied) == events_of(whole)
    assert [place.name for place in Path("checkpoint").iterdir()] == ["run1"]


def test_a_finished_run_is_left_as_it_is(copied, model):
    finetune(["text.txt"], model, training=LONG)  # the copied text is a little younger, and encoded again
    files = {path: path.read_bytes() for path in copied.directory.rglob("*") if path.is_file()}
    again = finetune(["text.txt"], model, training=LONG)
    assert (again.step, again.new_steps, again.interrupted) == (100, 0, False)
    assert {path: path.read_bytes() for path in copied.directory.rglob("*") if path.is_file()} == files


def test_asking_to_stop_at_the_last_step_interrupts_nothing(here, model):
    outcome = finetune(["text.txt"], model, training=SHORT, stop_asked=stop_after(20))
    assert (outcome.step, outcome.interrupted) == (20, False)


def test_a_run_that_goes_on_needs_no_model(copied):
    more = finetune(["text.txt"], "no-such-model", training=replace(LONG, steps=101))
    assert (more.step, more.new_steps) == (101, 1)


# --- settings ---


def written():
    return read_toml(Path("checkpoint", "run1", "run.toml"))


def test_a_run_that_goes_on_with_other_settings_says_so(copied):
    with pytest.warns(UserWarning, match=r"dropout 0.25 \(was 0.0\)$"):
        finetune(["text.txt"], training=replace(LONG, steps=101, dropout=0.25))


def test_a_window_that_was_cut_to_the_text_or_the_model_is_no_other_setting(here, model):
    finetune(["text.txt"], model, training=replace(SHORT, window=5000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finetune(["text.txt"], model, training=replace(SHORT, window=5000, steps=SHORT.steps + 1))


def test_a_finished_run_keeps_its_settings_whatever_is_asked(copied):
    before = written()
    finetune(["text.txt"], "another-model", training=replace(LONG, steps=4))
    assert written() == before


def test_a_run_that_goes_on_remembers_the_model_it_started_from(copied, model):
    finetune(["text.txt"], "another-model", training=replace(LONG, steps=101))
    assert (written()["model"], written()["training"]["steps"]) == (str(model), 101)


def test_what_was_decided_when_a_run_began_holds_on(here, model):
    """Steps are asked for first; what the others were decided to be then may not change with them."""
    finetune(["text.txt"], model, training=TrainingConfig(steps=2))
    before, plans = written()["training"], []
    finetune(["text.txt"], model, training=TrainingConfig(steps=5), announce=plans.append)
    assert plans[0].decisions == ()
    assert written()["training"] == {**before, "steps": 5}


def test_what_is_asked_for_wins_over_what_was_decided(copied, model):
    finetune(["text.txt"], model, training=TrainingConfig(steps=101, learning_rate=2e-3))
    assert (written()["training"]["learning_rate"], written()["training"]["batch_size"]) == (2e-3, 2)


def test_epochs_are_counted_anew_where_they_are_asked_for(copied, model):
    plans = []
    finetune(["text.txt"], model, training=replace(LONG, steps=None, epochs=6), announce=plans.append)
    assert plans[0].steps == -(-6 * ((plans[0].tokens - 1) // 16 - 1) // 2) > 100


CHANGES = {"optimizer": "sgd"}, {"optimizer": "muon"}, {"only_train_transformer_layers": True}


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_another_optimizer_begins_with_an_empty_memory(copied, model, changes):
    """There and back again, as old scripts do: nothing is taken for what it is not."""
    there = replace(LONG, steps=102, **changes)
    with pytest.warns(UserWarning, match=r"remembers nothing yet: step 100 was adamw's"):
        finetune(["text.txt"], model, training=there)
    assert (copied.state(102)["updates"], copied.latest()) == (2, 102)
    with pytest.warns(UserWarning, match=r"adamw remembers nothing yet: step 102 was "):
        finetune(["text.txt"], model, training=replace(LONG, steps=105))
    assert (copied.state(105)["updates"], copied.latest()) == (3, 105)


# --- text ---


def test_a_changed_text_is_told_and_learnt_from(here, copied, model):
    (here / "text.txt").write_text("A cow ate it. " * 80, encoding="utf-8")
    plans = []
    with pytest.warns(
        UserWarning,
        match=r"from step 100 on, run1 learns from other text: .* from 1,120 bytes, not .* from 1,740 bytes",
    ):
        finetune(["text.txt"], model, training=replace(LONG, steps=101), announce=plans.append)
    assert plans[0].documents == 1
    assert (copied.directory / "tokens" / "ends.bin").read_bytes() == (
        (plans[0].tokens + plans[0].held_out).to_bytes(8, "little")
    )


def test_what_came_through_standard_input_is_there_when_the_run_goes_on(here, model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode()), encoding="utf-8"))
    finetune(["-"], model, training=SHORT)
    dataset = written()["dataset"]
    more = finetune(dataset, model, training=replace(SHORT, steps=21))
    assert (dataset, more.step) == (["checkpoint/run1/tokens"], 21)


# --- from elsewhere ---


def test_a_run_that_goes_back_to_a_step_ends_as_it_did(whole, copied, model):
    plans = []
    finetune(["text.txt"], model, training=LONG, restore_from="50", announce=plans.append)
    assert plans[0].done == 50
    assert newest_files(copied) == newest_files(whole)
    assert events_of(copied) == events_of(whole)
    assert (copied.best(), copied.latest()) == (whole.best(), whole.latest())


def test_a_run_that_died_after_going_back_goes_on_from_there(whole, copied, model):
    with pytest.raises(PowerCut):
        finetune(["text.txt"], model, training=LONG, restore_from="50", report=die_at(60))
    assert copied.latest() == 50
    assert finetune(["text.txt"], model, training=LONG).new_steps == 50
    assert newest_files(copied) == newest_files(whole)
    assert events_of(copied) == events_of(whole)


def test_an_unknown_step_is_answered_with_those_that_are_kept(copied, model):
    with pytest.raises(ModelNotFound, match=r"no step 70; kept are: 50, 100"):
        finetune(["text.txt"], model, training=LONG, restore_from="70")


def test_a_run_goes_on_from_its_best_step(copied, model):
    (copied.directory / "best").write_text("000000050\n", encoding="utf-8")
    assert finetune(["text.txt"], model, training=LONG, restore_from="best").new_steps == 50


def test_without_a_measurement_there_is_no_best_step(here, model):
    finetune(["text.txt"], model, training=replace(SHORT, validation_share=0))
    with pytest.raises(ModelNotFound, match=r"no best step.*steps: \[10, 20\]"):
        finetune(["text.txt"], model, training=SHORT, restore_from="best")


def test_beginning_again_keeps_what_was_trained_in_another_directory(whole, copied, model):
    plans = []
    again = finetune(["text.txt"], model, training=LONG, restore_from="fresh", announce=plans.append)
    assert (again.new_steps, plans[0].done, plans[0].set_aside) == (100, 0, Path("checkpoint/run1-1"))
    assert newest_files(copied) == newest_files(Run.named("run1-1")) == newest_files(whole)
    assert events_of(copied) == events_of(Run.named("run1-1")) == events_of(whole)
    assert open_checkpoint("run1-1@50").step == 50


def test_what_tensorboard_reads_of_a_new_beginning_is_in_the_run(copied, model):
    pytest.importorskip("tensorboard")
    former = [path.name for path in copied.directory.glob("events.*")]
    finetune(["text.txt"], model, training=SHORT, restore_from="fresh")
    assert [path.name for path in Path("checkpoint/run1-1").glob("events.*")] == former
    assert len(list(copied.directory.glob("events.*"))) == 1


def test_a_run_can_begin_again_from_a_checkpoint(copied, model):
    plans = []
    finetune(["text.txt"], model, training=SHORT, restore_from="run1@50", announce=plans.append)
    assert (plans[0].origin, plans[0].done) == ("checkpoint/run1/steps/000000050", 0)
    finetune(["text.txt"], model, training=SHORT, restore_from=str(model), announce=plans.append)
    assert (plans[1].origin, plans[1].set_aside) == (str(model), Path("checkpoint/run1-2"))


def test_a_new_beginning_that_is_refused_leaves_all_as_it_was(copied, model):
    with pytest.raises(ModelNotFound, match="lastest"):
        finetune(["text.txt"], model, training=LONG, restore_from="lastest")
    assert (copied.latest(), Path("checkpoint/run1-1").exists()) == (100, False)


# --- damage ---


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_torn_newest_step_is_named_and_the_one_before_goes_on(whole, copied, model, name, damage):
    damage(copied.step_directory(100) / name)
    with pytest.warns(UserWarning, match=rf"000000100.{name}: .*going on from step 50"):
        outcome = finetune(["text.txt"], model, training=LONG)
    assert outcome.new_steps == 50
    assert newest_files(copied) == newest_files(whole)
    assert events_of(copied) == events_of(whole)


def test_where_all_steps_are_torn_nothing_is_begun(copied, model):
    for step in copied.steps():
        cut(copied.step_directory(step) / "model.safetensors")
    with pytest.raises(ModelNotFound, match=r"000000100.model\.safetensors: .*no older step.*--restore-from fresh"):
        finetune(["text.txt"], model, training=LONG)
    assert copied.steps() == [50, 100]
    assert finetune(["text.txt"], model, training=SHORT, restore_from="fresh").step == 20


def test_a_torn_step_that_is_asked_for_by_name_is_refused(copied, model):
    flip(copied.step_directory(50) / "model.safetensors")
    with pytest.raises(Exception, match=r"000000050.model\.safetensors: torn"):
        finetune(["text.txt"], model, training=LONG, restore_from="50")
    assert copied.latest() == 100
