import re
import signal
import time

import pytest

from gpt2kit.runs import Run

TEXT = "The cat sat on the mat. The dog ate the fog, and then the cat ate the dog; so it goes.\n" * 20
SMALL = ("--steps", "4", "--window", "16", "--print-every", "2", "--learning-rate", "1e-3")


@pytest.fixture(autouse=True)
def text(here):
    """What the runs learn."""
    (here / "text.txt").write_text(TEXT, encoding="utf-8")


def test_a_run_tells_its_plan_its_progress_and_where_it_stands(gpt2, model):
    status, out, err = gpt2("finetune", "text.txt", "--model", model, *SMALL)
    assert status == 0
    assert re.fullmatch(r"checkpoint/run1: step 4, loss \d\.\d{3}, validation loss \d\.\d{3}\n", out)
    assert f"model    {model}, 74,280 parameters, on " in err
    assert re.search(r"^text     [\d,]+ tokens to learn from, [\d,]+ held out, windows of 16$", err, re.MULTILINE)
    assert "steps    0 of 4 done" in err
    assert re.search(r"^train 4/4 steps  loss \d\.\d{3}", err, re.MULTILINE)


def test_without_held_out_text_there_is_no_validation_loss(gpt2, model):
    _, out, err = gpt2("finetune", "text.txt", "--model", model, *SMALL, "--validation-share", "0")
    assert re.fullmatch(r"checkpoint/run1: step 4, loss \d\.\d{3}\n", out)
    assert "none held out" in err


def test_a_finished_run_says_that_there_is_nothing_to_do(gpt2, model):
    _, first, _ = gpt2("finetune", "text.txt", "--model", model, *SMALL)
    status, out, _ = gpt2("finetune", "text.txt", "--model", model, *SMALL)
    assert (status, out) == (0, f"{first}nothing to do: 4 steps are done, 4 were asked; ask for more with --steps\n")


def test_a_runs_own_settings_go_on_with_it(gpt2, model):
    gpt2("finetune", "text.txt", "--model", model, *SMALL, "--run-name", "mine")
    status, out, err = gpt2("finetune", "--config", "checkpoint/mine/run.toml", "--steps", "6")
    assert status == 0
    assert out.startswith("checkpoint/mine: step 6, ")
    assert "windows of 16" in err
    assert "steps    4 of 6 done" in err


def test_a_run_in_training_is_one_line_and_status_1(gpt2, model):
    with Run.named("run1").locked():
        status, out, err = gpt2("finetune", "text.txt", "--model", model, *SMALL)
    assert (status, out) == (1, "")
    assert re.fullmatch(r"gpt2: checkpoint/run1: another process is training this run; .*\n", err)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_no_generator_takes_is_refused(gpt2, model, seed):
    """numpy's Philox takes keys of 64 bits."""
    status, out, err = gpt2("finetune", "text.txt", "--model", model, *SMALL, "--seed", seed)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "seed" in err


def test_without_a_text_nothing_is_trained(gpt2, model, here):
    status, out, err = gpt2("finetune", "--model", model)
    assert (status, out) == (1, "")
    assert err.startswith("gpt2: no text was named")
    assert not (here / "checkpoint" / "run1").exists()


@pytest.fixture
def interrupted(start, here, model):
    """A run in a process of its own, interrupted by Ctrl-C in the middle: status and outputs."""
    words = ("--steps", "100000", "--window", "16", "--print-every", "1", "--save-every", "100000")
    process = start("finetune", "text.txt", "--model", model, *words)
    while b"train" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.slow
def test_ctrl_c_saves_and_tells_how_to_go_on(interrupted, gpt2):
    status, out, err = interrupted
    step = Run.named("run1").latest()
    assert status == 130
    assert "saving; Ctrl-C again ends at once" in err
    assert re.match(rf"checkpoint/run1: step {step:,}, ", out)
    again = out.splitlines()[-1].removeprefix("to go on: gpt2 ")
    status, out, _ = gpt2(*again.split(), "--steps", step + 1)
    assert status == 0
    assert out.startswith(f"checkpoint/run1: step {step + 1:,}, ")
