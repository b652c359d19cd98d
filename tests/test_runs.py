import contextlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from gpt2kit.errors import ConfigError, FormatError, ModelNotFound, RunLocked
from gpt2kit.runs import Run


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run1")


def save(run, step, *, best=False, keep=9, **state):
    with run.saving(step, state, best=best, keep=keep) as directory:
        (directory / "model.safetensors").write_bytes(b"weights of step %d" % step)
        (directory / "optimizer.safetensors").write_bytes(b"moments of step %d" % step)


def tree(run):
    return {path.relative_to(run.directory).as_posix() for path in run.directory.rglob("*") if path.is_file()}


# --- the layout ---


def test_a_saved_step_lies_where_the_layout_says(run):
    save(run, 2000, best=True)
    assert tree(run) == {
        *("model.safetensors", "counter", "latest", "best"),
        "steps/000002000/model.safetensors",
        "steps/000002000/optimizer.safetensors",
        "steps/000002000/state.json",
    }


def test_pointers_are_lines_that_name_a_step(run):
    save(run, 2000, best=True)
    lines = {name: (run.directory / name).read_bytes() for name in ("counter", "latest", "best")}
    assert lines == {"counter": b"2000\n", "latest": b"000002000\n", "best": b"000002000\n"}


def test_the_model_of_the_run_is_a_hard_link_to_the_newest_steps(run):
    for step in (10, 20):
        save(run, step)
        newest = run.directory / "steps" / f"{step:09d}" / "model.safetensors"
        assert os.path.samefile(run.directory / "model.safetensors", newest)


def test_where_there_are_no_hard_links_the_model_is_copied(run, monkeypatch):
    def refuse(source, target):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    save(run, 10)
    assert (run.directory / "model.safetensors").read_bytes() == b"weights of step 10"


def test_state_comes_back_with_its_step(run):
    save(run, 10, values={"loss": 1.5}, best_validation_loss=None)
    state = run.state(10)
    assert (state["step"], state["values"], state["best_validation_loss"]) == (10, {"loss": 1.5}, None)


def test_a_new_run_has_no_steps(run):
    assert (run.steps(), run.latest(), run.best()) == ([], None, None)


def test_steps_are_in_order_of_number_also_beyond_nine_digits(run):
    for step in (5, 999_999_999, 10**9):
        save(run, step)
    assert run.steps() == [5, 999_999_999, 10**9]
    assert run.latest() == 10**9


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(run):
    for step in (10, 20):
        save(run, step)
    with pytest.raises(ModelNotFound, match=r"no step 15; kept are: 10, 20"):
        run.step_directory(15)


def test_a_damaged_state_is_refused_by_name(run):
    save(run, 10)
    (run.directory / "steps" / "000000010" / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match=r"state\.json: not JSON"):
        run.state(10)


# --- names ---


@pytest.mark.parametrize("name", ["run1", "my-run_2.5", "床前", "v1.0", "my run", "床前 明月 2.5"])
def test_plain_names_are_runs_under_checkpoint(name):
    assert Run.named(name).directory.as_posix() == f"checkpoint/{name}"


@pytest.mark.parametrize(
    "name", ["a/b", "../a", "a\\b", "", ".", "..", " a", "a ", "a  b", "a\tb", "a@5", "/etc", "a\n"]
)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(ConfigError, match="run name"):
        Run.named(name)


# --- samples ---


def test_a_sample_is_kept_in_the_run_and_where_the_old_tools_put_it(run, tmp_path):
    run.save_sample(7, "床前\n", samples=tmp_path / "samples")
    for directory in (run.directory / "samples", tmp_path / "samples" / "run1"):
        assert (directory / "samples-7").read_bytes() == "床前\n".encode()


def test_a_sample_that_cannot_be_where_the_old_tools_put_it_is_in_the_run(run, tmp_path):
    (tmp_path / "samples").write_text("mine", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"samples/run1: .*; samples are in .*/run1$"):
        run.save_sample(7, "床前\n", samples=tmp_path / "samples")
    assert (run.directory / "samples" / "samples-7").read_bytes() == "床前\n".encode()
    assert (tmp_path / "samples").read_text(encoding="utf-8") == "mine"


# --- pruning ---


def test_only_the_newest_steps_are_kept(run):
    for step in (10, 20, 30, 40):
        save(run, step, keep=2)
    assert run.steps() == [30, 40]


def test_the_best_step_is_kept_besides(run):
    save(run, 10, best=True)
    for step in (20, 30, 40):
        save(run, step, keep=2)
    assert run.steps() == [10, 30, 40]
    assert run.best() == 10


def test_a_new_best_lets_the_old_one_go(run):
    save(run, 10, best=True)
    save(run, 20, best=True, keep=1)
    assert (run.steps(), run.best()) == ([20], 20)


def test_saving_a_step_again_replaces_it(run):
    save(run, 10, note="first")
    save(run, 10, note="second")
    assert (run.steps(), run.state(10)["note"]) == ([10], "second")


# --- crashes ---

STEP_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


def save_half(run, step):
    with run.saving(step, {}, best=True, keep=1) as directory:
        (directory / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")


def test_a_failure_while_saving_leaves_the_step_before(run):
    save(run, 10)
    before = tree(run)
    with pytest.raises(OSError, match="full"):
        save_half(run, 20)
    assert tree(run) == before
    assert (run.latest(), run.steps()) == (10, [10])


SAVER = """
import sys, time
from pathlib import Path
from gpt2kit.runs import Run

run = Run(Path(sys.argv[1]))
with run.locked(), run.saving(20, {}, best=True, keep=1) as directory:
    (directory / "model.safetensors").write_bytes(b"half of the weights")
    print("inside", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def killed(run):
    """A run with step 10, whose trainer was killed while it saved step 20."""
    save(run, 10)
    process = subprocess.Popen([sys.executable, "-c", SAVER, str(run.directory)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"inside\n"
        with pytest.raises(RunLocked), run.locked():
            pass
    finally:
        process.kill()
        process.communicate()
    return run


def test_a_trainer_killed_while_saving_leaves_the_step_before(killed):
    assert (killed.latest(), killed.steps()) == (10, [10])
    assert (killed.directory / "model.safetensors").read_bytes() == b"weights of step 10"


def test_a_killed_trainer_holds_no_lock_and_its_remains_do_not_disturb(killed):
    with killed.locked():
        save(killed, 20)
    assert killed.steps() == [10, 20]
    assert tree(killed) - {"lock"} == {
        *("model.safetensors", "counter", "latest"),
        *(f"steps/0000000{step}/{name}" for step in (10, 20) for name in STEP_FILES),
    }


def crash_at(monkeypatch, number):
    """Let the `number`-th rename from now on fail."""
    rename, calls = os.replace, 0

    def replace(source, target):
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError("power cut")
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("number", range(1, 7))
def test_a_crash_at_any_rename_leaves_a_newest_step_that_is_whole(run, monkeypatch, number):
    save(run, 10, best=True)
    with monkeypatch.context() as patch:
        crash_at(patch, number)
        with contextlib.suppress(OSError):
            save(run, 20, best=True)
    for step in (run.latest(), run.best()):
        assert step in (10, 20)
        assert {path.name for path in run.step_directory(step).iterdir()} == set(STEP_FILES)


@pytest.mark.parametrize("number", range(1, 7))
def test_after_a_crash_at_any_rename_the_next_save_works(run, monkeypatch, number):
    save(run, 10)
    with monkeypatch.context() as patch:
        crash_at(patch, number)
        with contextlib.suppress(OSError):
            save(run, 20, best=True)
    save(run, 30, keep=1)
    assert run.latest() == 30
    assert (run.directory / "model.safetensors").read_bytes() == b"weights of step 30"


def test_the_newest_save_is_kept_also_after_a_crash_left_a_later_step(run, monkeypatch):
    """Step 50 was written but never became the newest; training went on from step 10 and stopped at 20."""
    save(run, 10)
    with monkeypatch.context() as patch:
        crash_at(patch, 3)
        with contextlib.suppress(OSError):
            save(run, 50)
    assert run.latest() == 10, "the example must be cut before step 50 is named"
    save(run, 20, keep=1)
    assert run.state(run.latest())["step"] == 20


@pytest.mark.parametrize("number", range(1, 7))
def test_a_crash_at_any_rename_does_not_lose_which_step_was_best(run, monkeypatch, number):
    """Whoever resumes from step 20 knows its loss from state.json, so `best` must name it already."""
    save(run, 10, best=True)
    with monkeypatch.context() as patch:
        crash_at(patch, number)
        with contextlib.suppress(OSError):
            save(run, 20, best=True)
    assert run.latest() == 10 or run.best() == 20


def test_a_copy_of_a_step_beside_the_steps_is_no_step(run):
    save(run, 10)
    shutil.copytree(run.step_directory(10), run.directory / "steps" / "000000010-good")
    assert run.steps() == [10]


@pytest.mark.parametrize("content", ["", "ten", "²", "-1"])
def test_a_damaged_pointer_is_refused_by_name(run, content):
    save(run, 10)
    (run.directory / "latest").write_text(content, encoding="utf-8")
    with pytest.raises(FormatError, match=r"latest: found .*, expected the number of a step; kept are: \[10\]"):
        run.latest()


# --- the lock ---


def test_only_one_can_train_a_run(run):
    with (
        run.locked(),
        pytest.raises(RunLocked, match=r"run1: another process is training this run"),
        Run(run.directory).locked(),
    ):
        pass


def test_a_lock_given_back_can_be_taken_again(run):
    with run.locked():
        pass
    with run.locked():
        save(run, 1)


def test_a_lock_is_given_back_after_a_failure(run):
    with pytest.raises(ZeroDivisionError), run.locked():
        raise ZeroDivisionError
    with run.locked():
        save(run, 1)


def test_other_runs_are_not_locked(run, tmp_path):
    with run.locked(), Run(tmp_path / "run2").locked():
        pass


# --- metrics ---


@pytest.fixture
def logged(run):
    run.directory.mkdir()
    for step in (1, 2):
        run.log({"event": "train", "step": step})
        run.log({"event": "validation", "step": step, "loss": step / 2})
    return run


def test_metrics_are_one_json_object_a_line(logged):
    lines = logged.metrics_path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines[:2]] == [
        {"event": "train", "step": 1},
        {"event": "validation", "step": 1, "loss": 0.5},
    ]


def test_metrics_are_told_apart_by_event(logged):
    assert [entry["loss"] for entry in logged.metrics("validation")] == [0.5, 1.0]


def test_a_torn_last_line_is_ignored(logged):
    with logged.metrics_path.open("a", encoding="utf-8") as file:
        file.write('{"event": "train", "st')
    assert [entry["step"] for entry in logged.metrics("train")] == [1, 2]


def test_a_run_without_metrics_has_none(run):
    assert run.metrics("train") == []


def test_a_resume_forgets_what_came_after_its_snapshot(logged):
    save(logged, 2)
    logged.log({"event": "train", "step": 3})
    logged.cut_metrics(logged.state(2)["metrics_bytes"])
    assert [entry["step"] for entry in logged.metrics("train")] == [1, 2]


def test_a_cut_never_lengthens_the_file(logged):
    before = logged.metrics_path.read_bytes()
    logged.cut_metrics(len(before) + 100)
    assert logged.metrics_path.read_bytes() == before
