"""Runs that nshepperd's code and gpt-2-simple left, files as they wrote them, go on."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import ConfigError, ModelNotFound
from gpt2kit.jobs.finetune import finetune
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run

pytestmark = pytest.mark.slow

TWO_MORE = TrainingConfig(steps=4, batch_size=2, window=32, learning_rate=1e-3, precision="fp32", sample_every=0)
STEPS = {"gpt2simple": 2, "nshepperd": 4}  # that the old programs did, by the names of their files


@pytest.fixture(autouse=True)
def text(here):
    (here / "text.txt").write_text("First Citizen:\nBefore we proceed any further, hear me speak.\n" * 30, "utf-8")


@pytest.fixture(params=STEPS)
def old(request, here, shared):
    """A run of each program; nshepperd's has its vocabulary in models/117M."""
    fixture = shared / "fixtures" / request.param
    shutil.copytree(fixture / "checkpoint", here / "checkpoint")
    if (fixture / "models").exists():
        shutil.copytree(fixture / "models", here / "models")
    return STEPS[request.param]


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file() and path.name != "lock"}


def test_it_goes_on_where_it_was_and_its_files_stay(old):
    before, plans = contents(Path("checkpoint/run1")), []
    outcome = finetune(["text.txt"], "124M", training=replace(TWO_MORE, steps=old + 2), announce=plans.append)
    assert (plans[0].origin, plans[0].done, outcome.step, outcome.new_steps) == ("checkpoint/run1", old, old + 2, 2)
    after = contents(outcome.directory)
    changed = {name for name, content in before.items() if after[name] != content}
    assert changed == {"counter"}
    assert after["counter"] == f"{old + 2}\n".encode()
    assert Run(outcome.directory).steps() == [old + 2]


def test_what_was_learnt_there_is_learnt_on(old):
    former = open_checkpoint("run1").tensors["h.0.attn.c_attn.weight"].read()
    finetune(["text.txt"], "124M", training=replace(TWO_MORE, steps=old + 1, learning_rate=1e-6))
    later = open_checkpoint("run1")
    assert later.step == old + 1
    found = later.tensors["h.0.attn.c_attn.weight"].read()
    assert 0 < np.abs(found - former).max() < 1e-5
    assert later.tokenizer_files, "the run has its vocabulary now"


def test_without_a_number_of_steps_more_are_done_than_were(old):
    plans = []
    settings = replace(TWO_MORE, steps=None, epochs=0.5)
    outcome = finetune(["text.txt"], "124M", training=settings, announce=plans.append)
    assert outcome.new_steps == plans[0].steps - old > 0


def test_afterwards_it_is_a_run_like_any_other(old):
    finetune(["text.txt"], "124M", training=replace(TWO_MORE, steps=old + 1))
    again = finetune(["text.txt"], "124M", training=replace(TWO_MORE, steps=old + 3))
    assert (again.step, again.new_steps) == (old + 3, 2)


@pytest.mark.parametrize("fewer", [0, 1])
def test_steps_that_are_behind_it_are_refused_in_one_line_and_nothing_is_left(old, fewer):
    before = {path.name for path in Path("checkpoint/run1").iterdir()}
    with pytest.raises(ConfigError) as refused:
        finetune(["text.txt"], "124M", training=replace(TWO_MORE, steps=old - fewer))
    assert str(refused.value) == (
        f"checkpoint/run1: has {old} steps behind it, which steps counts too; ask for more of them"
    )
    assert {path.name for path in Path("checkpoint/run1").iterdir()} - before <= {"lock"}


def test_it_goes_on_from_the_step_that_is_asked_for(old):
    """Which is the only one of gpt-2-simple's, and the first of nshepperd's two."""
    before, plans = contents(Path("checkpoint/run1")), []
    training = replace(TWO_MORE, steps=3, learning_rate=1e-6)
    outcome = finetune(["text.txt"], "124M", training=training, restore_from="2", announce=plans.append)
    assert (plans[0].origin, plans[0].done, outcome.step, outcome.new_steps) == ("checkpoint/run1", 2, 3, 1)
    far = {
        step: distance(open_checkpoint("run1"), open_checkpoint(f"checkpoint/run1/model-{step}")) for step in (2, old)
    }
    assert 0 < far[2] < 1e-5
    assert old == 2 or far[old] > 1e-4, "from the first of its steps, not from the newest"
    after = contents(outcome.directory)
    assert {name for name, content in before.items() if after[name] != content} == {"counter"}


def test_a_step_that_is_not_there_is_told_with_those_that_are(old):
    with pytest.raises(ModelNotFound, match=rf"no checkpoint of step 7; there are .*{old}"):
        finetune(["text.txt"], "124M", training=TWO_MORE, restore_from="7")


def distance(one, other):
    return max(np.abs(one.tensors[name].read() - other.tensors[name].read()).max() for name in other.tensors)


def test_what_a_start_told_that_was_killed_before_it_saved_is_forgotten(old):
    told = Path("checkpoint/run1/metrics.jsonl")
    told.write_text('{"event": "train", "step": 99, "time": 1.0, "loss": 9.9}\n{"event": "tra', "utf-8")
    finetune(["text.txt"], "124M", training=replace(TWO_MORE, steps=old + 2, print_every=1))
    assert [event["step"] for event in Run.named("run1").metrics("train")] == [old + 1, old + 2]


def test_a_new_beginning_keeps_all_of_it_in_another_directory(old, model):
    before, plans = contents(Path("checkpoint/run1")), []
    outcome = finetune(["text.txt"], model, training=TWO_MORE, restore_from="fresh", announce=plans.append)
    assert (plans[0].done, plans[0].set_aside, outcome.step) == (0, Path("checkpoint/run1-1"), 4)
    assert contents(Path("checkpoint/run1-1")) == before
    assert not list(outcome.directory.glob("model-*"))


def test_a_model_that_is_no_run_is_not_written_over(here, model):
    shutil.copytree(model, here / "checkpoint" / "run1")
    before = contents(here / "checkpoint" / "run1")
    with pytest.raises(ConfigError, match=r"run1: holds a model already; .*--model checkpoint/run1 --run-name ANOTHER"):
        finetune(["text.txt"], model, training=TWO_MORE)
    assert contents(here / "checkpoint" / "run1") == before
