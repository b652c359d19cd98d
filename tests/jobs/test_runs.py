import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2kit.config.training import ENDLESS
from gpt2kit.errors import ConfigError, ModelNotFound
from gpt2kit.jobs.runs import compare_runs, list_runs
from gpt2kit.runs import Run

SETTINGS = 'dataset = ["a.txt"]\nmodel = "124M"\nrun_name = "{}"\n[training]\nsteps = 100\nbatch_size = {}\n'
LINUX = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell who holds a lock")


@pytest.fixture(autouse=True)
def in_a_directory_of_our_own(here):
    """Runs are looked for in the current directory."""


def make(name, learnt=(), held_out=(), *, batch_size=2, saved=(), best=None):
    """A run with these losses by step, and a snapshot of 1000 bytes at each of the steps `saved`."""
    run = Run.named(name)
    run.directory.mkdir(parents=True)
    (run.directory / "run.toml").write_text(SETTINGS.format(name, batch_size), encoding="utf-8")
    for event, losses in (("train", learnt), ("validation", held_out)):
        for step, loss in dict(losses).items():
            run.log({"event": event, "step": step, "time": 1.7e9, "loss": loss})
    for step in saved:
        with run.saving(step, {}, best=step == best, keep=9) as directory:
            (directory / "model.safetensors").write_bytes(bytes(1000))
    return run


def told(name):
    return next(summary for summary in list_runs() if summary.name == name)


# --- the list ---


def test_without_a_checkpoint_directory_there_are_no_runs():
    assert list_runs() == []


def test_a_run_is_told_as_it_stands():
    make("one", {10: 3.0, 20: 2.0}, {10: 3.5, 20: 3.75}, saved=(10, 20), best=10)
    run = told("one")
    assert (run.step, run.steps, run.loss, run.validation_loss, run.best_step) == (20, 100, 2.0, 3.75, 10)
    assert run.notes == ()


def test_a_run_is_as_old_as_its_newest_snapshot():
    run = make("one", saved=(10, 20))
    os.utime(run.step_directory(20) / "state.json", (1.6e9, 1.6e9))
    assert told("one").saved == 1.6e9


def test_a_hard_link_takes_no_room():
    run = make("one", saved=(10,))
    assert os.path.samefile(run.directory / "model.safetensors", run.step_directory(10) / "model.safetensors")
    others = sum(
        path.stat().st_size for path in run.directory.rglob("*") if path.is_file() and path.suffix != ".safetensors"
    )
    assert told("one").size_bytes == 1000 + others


def test_the_run_that_was_touched_last_is_first():
    for age, name in enumerate(("new", "older", "oldest")):
        for path in make(name, {1: 3.0}).directory.iterdir():
            os.utime(path, (1.7e9 - age, 1.7e9 - age))
    assert [run.name for run in list_runs()] == ["new", "older", "oldest"]


def test_directories_and_files_that_are_no_runs_are_passed_over():
    make("one")
    Path("checkpoint", "notes").mkdir()
    Path("checkpoint", "notes.txt").touch()
    assert [run.name for run in list_runs()] == ["one"]


# --- damage ---


def test_a_run_that_stopped_without_saving_says_where_it_goes_on():
    run = make("one", {10: 3.0}, saved=(10,))
    run.log({"event": "train", "step": 17, "loss": 2.0})
    with run.locked():
        pass
    assert told("one").step == 17
    if told("one").training is not None:
        assert told("one").notes == ("stopped without saving; going on starts again at step 10",)


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("metrics.jsonl", "{torn\n", "metrics.jsonl: lines without an event or a loss: 1"),
        ("latest", "ten", "latest: found 'ten'"),
        ("latest", "000000030", "there is no step 30; kept are: 10, 20"),
        ("best", "", "best: found ''"),
        ("run.toml", "=", "run.toml: not TOML"),
    ],
)
def test_a_damaged_file_is_a_note_and_the_rest_is_told(file, content, note):
    run = make("one", {10: 3.0, 20: 2.0}, saved=(10, 20), best=20)
    (run.directory / file).write_text(content, encoding="utf-8")
    (found,) = told("one").notes
    assert note in found
    assert told("one").size_bytes > 1000


def test_a_run_that_has_lost_its_snapshots_keeps_its_figures():
    run = make("one", {10: 3.0}, saved=(10,))
    shutil.rmtree(run.directory / "steps")
    assert (told("one").step, told("one").loss, told("one").saved) == (10, 3.0, None)
    assert "there is no step 10; kept are: none" in told("one").notes[0]


@pytest.mark.parametrize("steps", ['"many"', "1.5", "[]"])
def test_a_number_of_steps_that_is_no_number_is_unknown(steps):
    run = make("one")
    (run.directory / "run.toml").write_text(f"[training]\nsteps = {steps}\n", encoding="utf-8")
    assert told("one").steps is None


# --- who is training ---


@LINUX
def test_a_run_in_training_is_told():
    make("one")
    make("two")
    with Run.named("one").locked():
        assert (told("one").training, told("two").training) == (True, False)
    assert told("one").training is False


TRAINERS = """
from gpt2kit.runs import Run

for attempt in range(2000):
    with Run.named("one").locked():
        pass
"""


@pytest.mark.slow
def test_looking_never_turns_a_trainer_away():
    make("one")
    process = subprocess.Popen([sys.executable, "-c", TRAINERS], stderr=subprocess.PIPE)
    while process.poll() is None:
        list_runs()
    assert (process.returncode, process.communicate()[1]) == (0, b"")


# --- side by side ---


@pytest.mark.slow
def test_the_picture_is_named_after_the_runs():
    make("one", {1: 3.0})
    make("two", {1: 3.0})
    assert compare_runs(["one", "two"]).picture == Path("compare-one-two.png")
    assert Path("compare-one-two.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_picture_lies_where_it_is_asked_for():
    make("one", {1: 3.0})
    make("two", {1: 3.0})
    compare_runs(["one", "two"], Path("mine.png"))
    assert [path.name for path in Path().glob("*.png")] == ["mine.png"]


def test_only_settings_that_differ_are_told():
    make("one", batch_size=2)
    make("two", batch_size=8)
    assert compare_runs(["one", "two"]).settings == {"batch_size": (2, 8)}


def test_a_setting_that_only_one_run_knows_is_unknown_in_the_other():
    make("one")
    run = make("two")
    with (run.directory / "run.toml").open("a", encoding="utf-8") as file:
        file.write("dropout = 0.1\n")
    assert compare_runs(["one", "two"]).settings == {"dropout": (None, 0.1)}


def test_a_run_can_be_named_by_its_path():
    make("one", {1: 3.0})
    make("two", {1: 2.0})
    comparison = compare_runs(["checkpoint/one/", "two"])
    assert [curve.learnt.losses.tolist() for curve in comparison.curves.values()] == [[3.0], [2.0]]
    assert comparison.picture == Path("compare-one-two.png")


def give_vocabulary(name, tokenizer):
    for file in ("vocab.json", "merges.txt"):
        shutil.copyfile(tokenizer / file, Run.named(name).directory / file)


def test_runs_of_different_vocabularies_are_said_to_be_beyond_comparison(model):
    make("one")
    make("two")
    give_vocabulary("one", model)
    give_vocabulary("two", model)
    assert compare_runs(["one", "two"]).notes == ()
    place = Run.named("two").directory / "vocab.json"
    ids = json.loads(place.read_text(encoding="utf-8"))
    place.write_text(json.dumps(ids | {"<|endoftext|>": max(ids.values()) + 1}), encoding="utf-8")
    (note,) = compare_runs(["one", "two"]).notes
    assert note.startswith("the vocabularies differ: ")


def test_an_unknown_run_is_refused_with_near_names():
    make("story-large")
    make("two")
    with pytest.raises(ModelNotFound, match=r"no run 'story-lage'.*did you mean 'story-large'\?"):
        compare_runs(["story-lage", "two"])


def test_an_unknown_run_that_is_near_to_none_is_refused_with_all():
    make("one")
    make("two")
    with pytest.raises(ModelNotFound, match="runs here: one, two"):
        compare_runs(["zebra", "two"])


@pytest.mark.parametrize("names", [[], ["one"], ["one", "one"]])
def test_one_run_is_no_comparison(names):
    make("one")
    with pytest.raises(ConfigError, match="two or more"):
        compare_runs(names)


def test_a_picture_that_is_no_png_is_refused():
    make("one")
    make("two")
    with pytest.raises(ConfigError, match=r"mine\.svg: .*\.png"):
        compare_runs(["one", "two"], Path("mine.svg"))


def test_a_run_without_end_is_so_many_steps_of_none(here):
    run = make("run1", {5: 2.0}, saved=[5])
    settings = run.directory / "run.toml"
    settings.write_text(settings.read_text("utf-8").replace("steps = 100", f"steps = {ENDLESS}"), encoding="utf-8")
    assert (told("run1").step, told("run1").steps) == (5, None)
