import json
import struct

import pytest

from gpt2kit.runs import Run
from gpt2kit.train.curve import draw_curve, draw_curves, loss_limits, read_curve


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def log(run, event, losses):
    for step, loss in losses.items():
        run.log({"event": event, "step": step, "loss": loss})
    return read_curve(run)


def size_of_png(path):
    """Width and height, from the header that the PNG specification puts first."""
    signature, _, kind, width, height = struct.unpack(">8sI4sII", path.read_bytes()[:24])
    assert (signature, kind) == (b"\x89PNG\r\n\x1a\n", b"IHDR")
    return width, height


def pairs(points):
    return list(zip(points.steps, points.losses, strict=True))


# --- reading ---


def test_learnt_and_held_out_losses_are_told_apart(run):
    log(run, "train", {1: 3.0, 2: 2.5})
    curve = log(run, "validation", {2: 2.75})
    assert (pairs(curve.learnt), pairs(curve.held_out), curve.unreadable) == ([(1, 3.0), (2, 2.5)], [(2, 2.75)], 0)


@pytest.mark.parametrize(
    "line",
    ["\x00\x00", '{"event": "tr{"event"', "[]", "7", '{"step": 1}', '{"event": "train", "step": 2}', "", "[" * 9999],
)
def test_a_damaged_line_is_counted_and_the_others_are_read(run, line):
    log(run, "train", {1: 3.0})
    with run.metrics_path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    curve = log(run, "train", {3: 1.0})
    assert (pairs(curve.learnt), curve.unreadable) == ([(1, 3.0), (3, 1.0)], 1)


def test_bytes_that_are_no_text_are_a_damaged_line(run):
    run.metrics_path.write_bytes(b"\xff\xfe\n" + b'{"event": "train", "step": 1, "loss": 3}\n')
    curve = read_curve(run)
    assert (pairs(curve.learnt), curve.unreadable) == ([(1, 3.0)], 1)


def test_a_torn_last_line_is_ignored(run):
    run.metrics_path.write_text('{"event": "train", "step": 1, "loss": 3}\n{"event": "train", "ste', encoding="utf-8")
    curve = read_curve(run)
    assert (pairs(curve.learnt), curve.unreadable) == ([(1, 3.0)], 0)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf"), None, "much"])
def test_a_loss_that_is_no_finite_number_is_left_out(run, loss):
    curve = log(run, "train", {1: 3.0, 2: loss, 3: 1.0})
    assert (pairs(curve.learnt), curve.unreadable) == ([(1, 3.0), (3, 1.0)], 1)


def test_other_events_are_no_damage(run):
    for event in ("save", "sample", "skip"):
        run.log({"event": event, "step": 1, "time": 1.0})
    assert read_curve(run).unreadable == 0


def test_the_lowest_loss_is_found_with_its_step(run):
    assert log(run, "validation", {10: 3.0, 20: 2.0, 30: 2.5}).held_out.lowest() == (20, 2.0)


def test_what_was_never_measured_has_no_lowest_loss(run):
    assert read_curve(run).held_out.lowest() is None


# --- what the picture shows ---


def test_thin_points_are_means_of_neighbours(run):
    curve = log(run, "train", {1: 8.0, 2: 6.0, 3: 2.0, 4: 1.0})
    assert pairs(curve.thinned(2).learnt) == [(1.5, 7.0), (3.5, 1.5)]


def test_few_points_stay_as_they_are(run):
    curve = log(run, "train", {1: 8.0, 2: 6.0})
    assert pairs(curve.thinned(2).learnt) == [(1, 8.0), (2, 6.0)]


def test_the_first_steps_do_not_squash_the_rest(run):
    low, high = loss_limits(
        [log(run, "train", {step: 11.0 if step < 10 else 3.0 - step / 100 for step in range(1, 101)})]
    )
    assert 1.9 < low < 2.0
    assert 2.9 < high < 3.0


def test_a_lone_spike_does_not_squash_the_rest(run):
    losses = dict.fromkeys(range(1, 101), 3.0) | {100: 2.0, 50: 90.0}
    low, high = loss_limits([log(run, "train", losses)])
    assert 1.9 < low < 2.0
    assert 3.0 < high < 3.1


@pytest.mark.parametrize("losses", [{}, {1: 3.0}, {1: 3.0, 2: 3.0}], ids=["none", "one", "equal"])
def test_limits_never_meet(run, losses):
    low, high = loss_limits([log(run, "train", losses)])
    assert low < high


# --- the picture ---


@pytest.mark.slow
@pytest.mark.parametrize("events", [["train", "validation"], ["train"], []], ids=["both", "no validation", "nothing"])
def test_a_curve_is_a_picture_whatever_was_measured(run, events):
    for event in events:
        log(run, event, {1: 3.0, 2: 1.5})
    draw_curve(run)
    assert size_of_png(run.directory / "loss.png") == (960, 600)


@pytest.mark.slow
def test_more_points_draw_another_picture(run):
    log(run, "train", {1: 3.0})
    draw_curve(run)
    before = (run.directory / "loss.png").read_bytes()
    log(run, "train", {2: 1.0})
    draw_curve(run)
    assert (run.directory / "loss.png").read_bytes() != before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["_hidden", "a$b_{$c", "checkpoint/run1"])
def test_any_name_can_stand_in_the_legend(run, name):
    curve = log(run, "train", {1: 3.0, 2: 1.0})
    draw_curves({name: curve, "other": curve}, run.directory / "both.png")
    assert size_of_png(run.directory / "both.png") == (960, 600)


@pytest.mark.slow
def test_a_long_run_is_read_whole(run):
    lines = (json.dumps({"event": "train", "step": step, "loss": 1 / step}) for step in range(1, 100_001))
    run.metrics_path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    curve = read_curve(run)
    assert (len(curve.learnt), curve.last_step()) == (100_000, 100_000)
    assert len(curve.thinned(200).learnt) == 200
