import io
import re
import signal
import sys
import time

import pytest

from gpt2kit.cli import terminal
from gpt2kit.config.toml_file import read_toml
from gpt2kit.jobs.load import load
from gpt2kit.runs import Run

pytestmark = pytest.mark.slow  # much of it starts processes or trains; make quick has the demo

TEXT = "The cat sat on the mat. The dog ate the fog, and then the cat ate the dog; so it goes.\n" * 20
SMALL = ("--steps", "4", "--batch-size", "2", "--window", "16", "--print-every", "2", "--learning-rate", "1e-3")


@pytest.fixture(autouse=True)
def text(here):
    """What the runs learn."""
    (here / "text.txt").write_text(TEXT, encoding="utf-8")


def settings(run="run1"):
    return read_toml(Run.named(run).directory / "run.toml")


# --- what it says ---


def test_a_run_tells_its_plan_its_progress_and_where_it_stands(gpt2, model):
    status, out, err = gpt2("finetune", "text.txt", "--model", model, *SMALL)
    assert status == 0
    assert re.fullmatch(r"checkpoint/run1: step 4, loss \d\.\d{3}, validation loss \d\.\d{3}\n", out)
    assert f"model    {model}, 74,280 parameters, on " in err
    plan = r"^text     1 document, [\d,]+ tokens to learn from, [\d,]+ held out, windows of 16$"
    assert re.search(plan, err, re.MULTILINE)
    assert "steps    0 of 4 done" in err
    assert re.search(r"^train 4/4 steps  loss \d\.\d{3}", err, re.MULTILINE)


def test_every_decision_is_a_line_with_its_reason_before_the_first_step(gpt2, model):
    _, _, err = gpt2("finetune", "text.txt", "--model", model, "--steps", "1")
    before, _, _ = err.partition("train 1/1 steps")
    decided = dict(re.findall(r"^decided  ([a-z-]+) .+: (.+)$", before, re.MULTILINE))
    assert set(decided) == {
        *("validation-share", "window", "precision", "batch-size", "accumulate", "learning-rate", "warmup-steps"),
        *("validate-every", "save-every", "sample-every"),
    }
    assert re.search(r"^loss     \d\.\d{3} before the first step$", before, re.MULTILINE)


def test_a_window_shorter_than_the_models_is_told(here, gpt2, model):
    (here / "short.txt").write_bytes(b"~^~^~^~")
    _, _, err = gpt2("finetune", "short.txt", "--model", model, "--steps", "1", "--validation-share", "0")
    assert "decided  window 7: shorter than 56: the text has 8 tokens\n" in err


def test_the_time_left_is_told_after_the_tenth_step(gpt2, model, monkeypatch):
    monkeypatch.setattr(terminal, "PLAIN_SECONDS", 0.0)
    _, _, err = gpt2("finetune", "text.txt", "--model", model, *SMALL, "--steps", "30", "--print-every", "20")
    lines = [line for line in err.splitlines() if line.startswith("train ")]
    assert [line.split()[1] for line in lines] == ["0/30", "1/30", "10/30", "20/30", "30/30"]
    assert ["ETA" in line for line in lines] == [False, False, True, True, False], "a first step tells nothing"


def test_samples_are_shown_as_they_come(gpt2, model):
    _, out, err = gpt2("finetune", "text.txt", "--model", model, *SMALL, "--sample-every", "3")
    assert re.findall(r"^======== step (\d+) ========$", err, re.MULTILINE) == ["3", "4"]
    assert "====" not in out


def test_without_held_out_text_there_is_no_validation_loss(gpt2, model):
    _, out, err = gpt2("finetune", "text.txt", "--model", model, *SMALL, "--validation-share", "0")
    assert re.fullmatch(r"checkpoint/run1: step 4, loss \d\.\d{3}\n", out)
    assert "none held out" in err


def test_a_best_step_that_is_not_the_newest_is_named_as_a_model(gpt2, model):
    """Of a text with nothing to learn: what learns it by heart does worse on the rest."""
    words = ("--steps", "60", "--batch-size", "8", "--window", "16", "--learning-rate", "1e-2", "--save-every", "10")
    words = ("finetune", "noise.txt", "--model", model, *words, "--validate-every", "10", "--patience", "2")
    noise = "".join(chr(97 + n * n % 8191 % 23) for n in range(600))
    (Run.named("run1").directory.parent.parent / "noise.txt").write_text(noise, encoding="utf-8")
    _, out, _ = gpt2(*words, "--sample-every", "0")
    best = Run.named("run1").best()
    assert f"; best at step {best} (run1@best)\n" in out
    assert "stopped: the held-out loss has not fallen any more; to train on: --patience 0\n" in out
    assert gpt2("inspect", "run1@best")[0] == 0


def test_a_finished_run_says_that_there_is_nothing_to_do(gpt2, model):
    _, first, _ = gpt2("finetune", "text.txt", "--model", model, *SMALL)
    status, out, _ = gpt2("finetune", "text.txt", "--model", model, *SMALL)
    assert (status, out) == (0, f"{first}nothing to do: 4 steps are done; ask for more with --steps\n")


def test_a_new_beginning_says_where_the_old_snapshots_are(gpt2, model):
    gpt2("finetune", "text.txt", "--model", model, *SMALL)
    status, _, err = gpt2("finetune", "text.txt", "--model", model, *SMALL, "--restore-from", "fresh")
    assert status == 0
    assert "begins again; what the run had is kept in checkpoint/run1-1\n" in err


# --- options ---


def test_the_old_names_of_options_train_the_same(gpt2, model):
    gpt2("finetune", "text.txt", "--model", model, "--run-name", "new", *SMALL)
    old = [word.replace("-", "_") if word.startswith("--") else word for word in SMALL]
    old = [word.replace("__", "--", 1) for word in old]
    status, out, _ = gpt2("finetune", "text.txt", "--model_name", model, "--run_name", "old", *old)
    assert (status, out.startswith("checkpoint/old: step 4, ")) == (0, True)
    assert {**settings("old"), "run_name": "new"} == settings("new")


def test_a_runs_own_settings_go_on_with_it(gpt2, model):
    gpt2("finetune", "text.txt", "--model", model, *SMALL, "--run-name", "mine", "--dropout", "0.1")
    before = settings("mine")
    status, out, err = gpt2("finetune", "--config", "checkpoint/mine/run.toml", "--steps", "6")
    assert status == 0
    assert out.startswith("checkpoint/mine: step 6, ")
    assert "steps    4 of 6 done" in err
    assert "decided" not in err
    assert settings("mine") == {**before, "training": {**before["training"], "steps": 6}}


def test_a_runs_own_settings_make_the_same_run_again_under_another_name(gpt2, model):
    gpt2("finetune", "text.txt", "--model", model, *SMALL)
    gpt2("finetune", "--config", "checkpoint/run1/run.toml", "--run-name", "run2")
    models = [(Run.named(name).directory / "model.safetensors").read_bytes() for name in ("run1", "run2")]
    assert models[0] == models[1]


def test_a_preset_holds_where_nothing_else_is_asked(gpt2, model):
    small = ("--window", "16", "--batch-size", "2", "--steps", "3", "--sample-every", "0")
    gpt2("finetune", "text.txt", "--model", model, "--preset", "from-scratch", *small)
    found = settings()["training"]
    assert (found["optimizer"], found["final_rate"], found["warmup_steps"]) == ("muon", 0.0, 50)
    assert (found["window"], found["batch_size"], found["steps"]) == (16, 2, 3)


def test_a_preset_that_saves_memory_learns(gpt2, model):
    status, _, err = gpt2("finetune", "text.txt", "--model", model, "--preset", "lean", *SMALL)
    assert (status, settings()["training"]["step_in_backward"]) == (0, True)
    assert "accumulate" not in err


def test_text_from_standard_input_is_learnt_and_kept_for_going_on(gpt2, model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode()), encoding="utf-8"))
    assert gpt2("finetune", "-", "--model", model, *SMALL)[0] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b""), encoding="utf-8"))
    status, out, _ = gpt2("finetune", "--config", "checkpoint/run1/run.toml", "--steps", "6")
    assert (status, out.startswith("checkpoint/run1: step 6, ")) == (0, True)


# --- mistakes ---


def test_a_run_in_training_is_one_line_and_status_1(gpt2, model):
    with Run.named("run1").locked():
        status, out, err = gpt2("finetune", "text.txt", "--model", model, *SMALL)
    assert (status, out) == (1, "")
    assert re.fullmatch(r"gpt2: checkpoint/run1: another process is training this run; .*\n", err)


MISTAKES = [
    (["--seed", "-1"], "seed must be in"),
    (["--seed", str(2**64)], "seed must be in"),  # numpy's Philox takes keys of 64 bits
    (["--epochs", "2"], "steps and epochs say the same thing; give one of them"),
    (["--accumulate", "3"], "a batch_size of 2 cannot be cut into 3 equal parts"),
    (["--preset", "leen"], "no preset 'leen'; there are from-scratch, lean"),
    (["--preset", "lean", "--clip-norm", "1"], "step_in_backward cannot clip"),
    (["--restore-from", "7"], "checkpoint/run1: there is no step 7; kept are: none"),
    (["--restore-from", "best"], "checkpoint/run1: has no best step"),
    (["--restore-from", "lastest"], "no model 'lastest'"),
    (["--run-name", "a/b"], "run name 'a/b': use letters"),
    (["--validation-share", "1"], "validation_share must be in [0, 1), got 1.0"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_status_1_and_leaves_no_run(gpt2, model, words, said):
    status, out, err = gpt2("finetune", "text.txt", "--model", model, *SMALL, *words)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"gpt2: {said}")
    assert not Run.named("run1").directory.exists()


def test_without_a_text_nothing_is_trained(gpt2, model):
    status, out, err = gpt2("finetune", "--model", model)
    assert (status, out) == (1, "")
    assert err.startswith("gpt2: no text was named; give at least one file")
    assert not Run.named("run1").directory.exists()


# --- Ctrl-C ---


@pytest.fixture
def interrupted(start, model):
    """A run in a process of its own, Ctrl-C after its first step: the process."""

    def interrupt(*words):
        process = start("finetune", "text.txt", "--model", model, "--window", "16", "--steps", "100000", *words)
        while b"train" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        return process

    return interrupt


@pytest.mark.slow
def test_ctrl_c_saves_and_tells_how_to_go_on(interrupted, gpt2):
    process = interrupted("--save-every", "100000")
    out, err = process.communicate(timeout=60)
    step = Run.named("run1").latest()
    assert process.returncode == 130
    assert b"saving; Ctrl-C again ends at once" in err
    assert re.match(rf"checkpoint/run1: step {step:,}, ", out.decode())
    again = out.decode().splitlines()[-1].removeprefix("to go on: gpt2 ")
    status, out, _ = gpt2(*again.split(), "--steps", step + 1)
    assert status == 0
    assert out.startswith(f"checkpoint/run1: step {step + 1:,}, ")


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(interrupted):
    """Steps of some seconds, so that it comes before the first one has been heard."""
    process = interrupted("--batch-size", "8000", "--save-every", "100000")
    while b"saving" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert err.endswith(b"gpt2: interrupted\n")
    assert Run.named("run1").latest() is None


# --- a text to measure on ---


def test_a_text_of_its_own_is_measured_on(here, gpt2, model):
    (here / "other.txt").write_text("Dogs and cats and fog. " * 20, encoding="utf-8")
    more = ("--validation", "other.txt", "--validate-every", "2", "--validation-windows", "3")
    status, _, err = gpt2("finetune", "text.txt", "--model", model, *SMALL, *more)
    assert status == 0
    held_out = len(load(model).tokenizer.encode("Dogs and cats and fog. " * 20)) + 1  # the end token stands behind it
    assert f" tokens to learn from, {held_out} held out, windows of 16" in err
    assert settings()["validation"] == ["other.txt"]
    assert [event["step"] for event in Run.named("run1").metrics("validation")] == [2, 4]


@pytest.mark.parametrize("name", ["nshepperd", "gpt-2-simple"])
def test_the_presets_of_2019_learn_as_those_programs_did(gpt2, model, name):
    status, _, _ = gpt2(
        "finetune", "text.txt", "--model", model, "--preset", name, "--steps", "2", "--sample-every", "0"
    )
    learnt = settings()["training"]
    assert (status, learnt["weight_decay"], learnt["beta2"], learnt["schedule"]) == (0, 0.0, 0.999, "constant")
    assert learnt["learning_rate"] == {"nshepperd": 2e-5, "gpt-2-simple": 1e-4}[name]
    assert learnt["accumulate_as"] == "sum"
