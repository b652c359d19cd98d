import logging
import os
import signal
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt2kit.train.board import Board, board_if_installed

VALUES = {"loss": 2.5, "lr": 0.001, "grad_norm": 0.75, "tokens_per_second": 512.0}


def learnt(step, loss=2.5):
    return {"event": "train", "step": step, "time": 1.7e9 + step, "tokens": 64 * step, **VALUES, "loss": loss}


def read_back(directory):
    """What TensorBoard's own reader finds."""
    return EventAccumulator(str(directory)).Reload()


def points(directory, name):
    return [(event.step, event.value) for event in read_back(directory).Scalars(name)]


@pytest.fixture(autouse=True)
def quiet():
    """The reader tells about every purge."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run1"


def write(directory, step, *events):
    board = Board(directory, step)
    for event in events:
        board.log(event)
    board.close()


@pytest.mark.parametrize(
    ("name", "value"), [("loss/train", 2.5), ("lr", 0.001), ("grad_norm", 0.75), ("tokens_per_second", 512.0)]
)
def test_a_step_is_a_point_on_every_scalar(run, name, value):
    write(run, 0, learnt(1), learnt(2))
    assert points(run, name) == [(1, pytest.approx(value)), (2, pytest.approx(value))]


def test_held_out_loss_is_a_scalar_of_its_own(run):
    write(run, 0, learnt(5), {"event": "validation", "step": 5, "time": 1.7e9, "loss": 3.25})
    assert points(run, "loss/validation") == [(5, 3.25)]
    assert points(run, "loss/train") == [(5, 2.5)]


def test_a_point_is_as_old_as_its_event(run):
    write(run, 0, learnt(1))
    assert read_back(run).Scalars("loss/train")[0].wall_time == 1.7e9 + 1


def test_a_sample_is_text_that_markdown_leaves_as_it_is(run):
    write(run, 0, {"event": "sample", "step": 5, "time": 1.7e9, "text": "# 床前\n*moon*"})
    (event,) = read_back(run).Tensors("sample")
    assert event.step == 5
    assert [text.decode() for text in event.tensor_proto.string_val] == ["    # 床前\n    *moon*"]


def test_what_a_board_cannot_show_is_left_out(run):
    write(run, 0, {"event": "save", "step": 1, "time": 1.7e9}, {"event": "skip", "step": 2, "time": 1.7e9})
    assert read_back(run).Tags()["scalars"] == []


def test_a_value_that_is_not_finite_is_written_as_it_is(run):
    write(run, 0, learnt(1, float("inf")))
    assert points(run, "loss/train") == [(1, float("inf"))]


def test_after_a_resume_the_steps_that_were_lost_are_forgotten(run):
    """Step 3 was logged and never saved; the resume from step 2 takes another way."""
    write(run, 0, learnt(1, 8.0), learnt(2, 4.0), learnt(3, 99.0), learnt(4, 99.0))
    write(run, 2, learnt(3, 2.0))
    assert points(run, "loss/train") == [(1, 8.0), (2, 4.0), (3, 2.0)]


WRITER = """
import sys, time
from pathlib import Path
from gpt2kit.train.board import Board

board = Board(Path(sys.argv[1]), 0)
board.log({"event": "train", "step": 1, "time": 0.0, "loss": 2.5})
print(*sorted({"torch", "tensorflow"} & sys.modules.keys()), flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
raise ValueError("a crash")
"""


def start_writer(run, *words):
    command = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", WRITER, str(run), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_trainer_loses_no_event(run):
    process = start_writer(run, "wait")
    assert process.stdout.readline() == "\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert points(run, "loss/train") == [(1, 2.5)]


@pytest.mark.slow
def test_a_crash_ends_the_process_and_nothing_heavy_was_loaded(run):
    out, err = start_writer(run, "crash").communicate(timeout=60)
    assert out == "\n", "torch or TensorFlow was loaded"
    assert err.splitlines()[0].startswith("Traceback"), "a warning came first"
    assert err.endswith("ValueError: a crash\n")


def test_where_tensorboard_is_installed_there_is_a_board(run):
    board_if_installed(run, 0).close()
    assert [path.name.partition(".tfevents.")[0] for path in run.iterdir()] == ["events.out"]
