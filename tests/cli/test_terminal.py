import re
import time

import pytest

from gpt2kit.cli.terminal import drawing
from gpt2kit.progress import Progress


def shown(capsys, reports):
    with drawing() as report:
        for progress in reports:
            report(progress)
    out, err = capsys.readouterr()
    assert out == "", "standard output is for results"
    return err


# --- where nobody watches ---


def test_away_from_a_terminal_progress_is_plain_lines(capsys):
    assert shown(capsys, [Progress("train", 10, 10, "step")]) == "train 10/10 steps\n"


def test_a_line_shows_the_figures_worth_showing(capsys):
    values = {"loss": 2.34567, "lr": 1e-4, "tokens_per_second": 1234.5, "perplexity": 10.444}
    line = shown(capsys, [Progress("train", 1000, 1000, "step", values)])
    assert line == "train 1,000/1,000 steps  loss 2.346  1,234 tokens/s  perplexity 10.44\n"


def test_where_the_end_is_not_known_there_is_none(capsys):
    assert shown(capsys, [Progress("encode", 1500, None, "character")]) == "encode 1,500 characters\n"


def test_bytes_are_shown_in_millions(capsys):
    values = {"megabytes_per_second": 24.56, "tokens": 3_500_000}
    line = shown(capsys, [Progress("encode", 12_600_000, 12_600_000, "byte", values)])
    assert line == "encode 12.6/12.6 MB  24.6 MB/s  3,500,000 tokens\n"
    assert shown(capsys, [Progress("encode", 12_600_000, None, "byte")]) == "encode 12.6 MB\n"


def test_plain_lines_come_now_and_then_and_at_the_end(capsys):
    """A hundred reports within a second: the first, for nothing was said for long, and the last."""
    lines = shown(capsys, [Progress("train", done, 100, "step") for done in range(1, 101)]).splitlines()
    assert [line.split()[1] for line in lines] == ["1/100", "100/100"]


@pytest.fixture
def later(monkeypatch):
    """Let the clock stand still until told to go on."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def go_on(seconds):
        nonlocal now
        now += seconds

    return go_on


def test_an_estimate_of_the_time_left_comes_with_the_second_report(capsys, later):
    """Ten steps took 60 seconds, so 90 more take nine minutes."""

    def reports():
        yield Progress("train", 10, 110, "step")
        later(60)
        yield Progress("train", 20, 110, "step")

    assert shown(capsys, reports()) == "train 10/110 steps\ntrain 20/110 steps  ETA 9:00\n"


@pytest.mark.parametrize(
    ("steps", "face"), [(1, "0:10"), (5, "0:50"), (6, "1:00"), (359, "59:50"), (360, "1:00:00"), (397, "1:06:10")]
)
def test_the_time_left_is_written_as_a_clock_shows_it(capsys, later, steps, face):
    """A step takes ten seconds."""

    def reports():
        yield Progress("train", 1, steps + 2, "step")
        later(10)
        yield Progress("train", 2, steps + 2, "step")

    assert shown(capsys, reports()).splitlines()[-1].endswith(f"  ETA {face}")


def test_every_task_has_a_clock_of_its_own(capsys, later):
    def reports():
        yield Progress("encode", 1, 2, "file")
        later(100)
        yield Progress("train", 1, 4, "step")
        later(10)
        yield Progress("train", 2, 4, "step")

    assert shown(capsys, reports()).splitlines()[-1].endswith("  ETA 0:20")


# --- where somebody watches ---


def test_on_a_terminal_one_line_is_drawn_over_and_over(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    drawn = shown(capsys, [Progress("train", done, 50, "step", {"loss": 1 / done}) for done in range(1, 51)])
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert visible.rstrip().endswith("train 50/50 steps  loss 0.020")
    assert visible.count("\n") < 5


def test_the_last_line_of_a_task_stays_when_the_next_begins(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    drawn = shown(capsys, [Progress("encode", 7, None, "character"), Progress("train", 1, 2, "step")])
    assert "encode 7 characters" in drawn
    assert drawn.index("encode 7 characters") < drawn.rindex("train 1/2 steps")


def test_a_measurement_amid_training_leaves_no_lines(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    measuring = [Progress("validate", done, 4, "window") for done in (0, 2, 4)]
    drawn = shown(capsys, [Progress("train", 1, 9, "step"), *measuring, Progress("train", 2, 9, "step")])
    assert drawn.count("\n") == 1, "only the live line's own end"


def test_a_measurement_leaves_no_plain_line_either(capsys):
    assert shown(capsys, [Progress("train", 9, 9, "step"), Progress("validate", 4, 4, "window")]).count("\n") == 1
