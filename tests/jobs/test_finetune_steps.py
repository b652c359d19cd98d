"""How many steps a run without end has before it once an end is wanted, and a Ctrl-C before the first of them."""

import signal

import pytest

from gpt2kit.config.toml_file import read_toml
from gpt2kit.config.training import ENDLESS, TrainingConfig
from gpt2kit.jobs.finetune import finetune
from gpt2kit.jobs.interruptible import Interruptible
from gpt2kit.runs import Run

pytestmark = pytest.mark.slow

HOW = {"batch_size": 2, "window": 16, "learning_rate": 1e-3, "sample_every": 0, "validation_share": 0.0}


@pytest.fixture(autouse=True)
def text(here):
    """What the runs learn."""
    (here / "text.txt").write_text("The cat sat on the mat. The dog ate the fog.\n" * 20, encoding="utf-8")


@pytest.fixture
def go(model):
    """Train on the text with these settings, for one step if nothing else is said: the plan and the outcome."""

    def on(run_name="run1", stop_asked=lambda: True, **settings):
        plans = []
        outcome = finetune(
            ["text.txt"],
            model,
            run_name=run_name,
            training=TrainingConfig(**settings),
            announce=plans.append,
            stop_asked=stop_asked,
        )
        return plans[0], outcome

    return on


# --- a run without end ---


@pytest.fixture
def endless(go):
    """A run that was begun without a last step, and interrupted after its first."""
    _, outcome = go(**HOW, steps=ENDLESS)
    assert (outcome.step, outcome.interrupted) == (1, True)
    return Run(outcome.directory)


def settings_of(run):
    return read_toml(run.directory / "run.toml")["training"]


def test_without_a_number_it_does_as_many_more_as_a_new_run_would(endless, go):
    plan, outcome = go()
    young, _ = go("young", **HOW)
    assert (plan.done, plan.steps) == (1, 1 + young.steps)
    assert [made.setting for made in plan.decisions] == ["steps"], "all else is as it was"
    assert settings_of(endless)["steps"] == plan.steps
    assert outcome.step == 2


def test_the_steps_decided_then_hold_for_the_same_command_again(endless, go):
    first, _ = go()
    again, _ = go()
    assert (again.done, again.steps) == (2, first.steps)


def test_a_number_that_is_asked_for_is_the_last_step(endless, go):
    plan, outcome = go(steps=3, stop_asked=lambda: False)
    assert (plan.decisions, outcome.step, outcome.interrupted) == ((), 3, False)


def test_epochs_that_are_asked_for_count_from_the_beginning(endless, go):
    plan, _ = go(epochs=2)
    assert plan.steps == 2 * ((plan.tokens - 1) // 16 - 1) // 2, "of two windows each"


# --- Ctrl-C before the first step ---


@pytest.fixture(params=[0, 5], ids=["of a new run", "of a run that goes on"])
def done(request, go):
    """How many steps the run has behind it."""
    if request.param:
        go(**HOW, steps=request.param, stop_asked=lambda: False)
    return request.param


def test_who_asks_to_stop_at_once_gets_one_step_and_it_is_saved(done, go):
    _, outcome = go(**HOW, steps=9)
    assert (outcome.interrupted, outcome.step, outcome.new_steps) == (True, done + 1, 1)
    assert Run.named("run1").newest_sound() == (done + 1, [])


def test_ctrl_c_before_the_first_step_saves(done, model, capsys):
    heard = []

    def press(progress):
        heard.append((progress.task, progress.done))
        if heard[-1] == ("train", done):
            signal.raise_signal(signal.SIGINT)

    with Interruptible(press, lambda: print("saving")) as interruptible:
        outcome = finetune(
            ["text.txt"],
            model,
            training=TrainingConfig(**HOW, steps=9),
            report=interruptible.report,
            stop_asked=interruptible,
        )
    assert capsys.readouterr().out == "saving\n"
    assert [step for task, step in heard if task == "train"] == [done, done + 1]
    assert (outcome.interrupted, Run.named("run1").latest()) == (True, done + 1)
