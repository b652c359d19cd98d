import json
import os
import re
import shutil
import time

import pytest

from gpt2kit.runs import Run


def make(name, learnt=(), held_out=(), *, learning_rate=0.001, saved_seconds_ago=None):
    run = Run.named(name)
    run.directory.mkdir(parents=True)
    settings = f'run_name = "{name}"\n[training]\nsteps = 2000\nlearning_rate = {learning_rate}\n'
    (run.directory / "run.toml").write_text(settings, encoding="utf-8")
    for event, losses in (("train", learnt), ("validation", held_out)):
        for step, loss in dict(losses).items():
            run.log({"event": event, "step": step, "time": 1.7e9, "loss": loss})
    if saved_seconds_ago is not None:
        step = max(dict(learnt))
        with run.saving(step, {}, best=True, keep=1) as directory:
            (directory / "model.safetensors").write_bytes(bytes(1_234_567))
        moment = time.time() - saved_seconds_ago
        os.utime(run.step_directory(step) / "state.json", (moment, moment))
    return run


def cells(line):
    return re.split(r"\s{2,}", line.strip())


# --- gpt2 runs ---


def test_without_runs_it_says_how_to_make_one(gpt2):
    assert gpt2("runs") == (
        0,
        "no runs in checkpoint/; make one with: gpt2 finetune TEXT... (or see `gpt2 demo`)\n",
        "",
    )


def test_runs_of_other_programs_are_named(gpt2, here, shared):
    shutil.copytree(shared / "fixtures" / "gpt2simple" / "checkpoint", here / "checkpoint")
    assert gpt2("runs") == (0, "of other programs, and read as models: run1\n", "")
    assert gpt2("runs", "--json")[1] == "[]\n"


def test_a_run_is_a_line(gpt2):
    make("one", {10: 3.0, 1500: 2.0625}, {1500: 2.5}, saved_seconds_ago=3 * 3600 + 60)
    status, out, err = gpt2("runs")
    heading, line = out.splitlines()
    assert (status, err) == (0, "")
    assert cells(heading) == ["run", "step", "loss", "held out", "best at", "size", "saved"]
    assert cells(line) == ["one", "1,500 of 2,000", "2.062", "2.500", "1,500", "1.2 MB", "3 h ago"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((-5, "just now"), (59, "just now"), (60, "1 min ago"), (3599, "59 min ago"), (3600, "1 h ago")),
        *((47 * 3600, "47 h ago"), (48 * 3600 + 1, "2 days ago"), (400 * 86400 + 1, "400 days ago")),
    ],
)
def test_ages_are_told_in_words(gpt2, seconds, words):
    make("one", {1: 3.0}, saved_seconds_ago=seconds)
    assert cells(gpt2("runs")[1].splitlines()[1])[-1] == words


def test_columns_stay_aligned_whatever_the_names(gpt2):
    """A Chinese character is two columns wide."""
    make("a-rather-long-name-for-a-run", {1500: 12.0}, saved_seconds_ago=0)
    make("床前", {5: 3.0}, saved_seconds_ago=0)
    ends = [len(line.encode("gbk")) for line in gpt2("runs")[1].splitlines()[1:]]
    assert ends[0] == ends[1]


def test_what_is_unknown_is_a_dash_and_what_is_damaged_a_note(gpt2):
    run = make("one")
    (run.directory / "metrics.jsonl").write_text("{\n", encoding="utf-8")
    status, out, err = gpt2("runs")
    assert (status, err) == (0, "")
    _, line, note = out.splitlines()
    assert cells(line)[:5] == ["one", "-", "-", "-", "-"]
    assert note == "one: metrics.jsonl: lines without an event or a loss: 1"


def test_brackets_in_what_is_told_are_no_markup(gpt2):
    make("one", {1: 3.0}, saved_seconds_ago=0)
    (Run.named("one").directory / "best").write_text("[bold]", encoding="utf-8")
    assert "[bold]" in gpt2("runs")[1]


def test_programs_can_have_json(gpt2):
    make("one", {10: 2.0625}, saved_seconds_ago=0)
    (run,) = json.loads(gpt2("runs", "--json")[1])
    assert (run["name"], run["step"], run["loss"], run["validation_loss"]) == ("one", 10, 2.0625, None)


# --- gpt2 runs compare ---


@pytest.fixture
def two(here):
    make("slow", {1: 9.0, 10: 8.0, 20: 7.0}, {10: 8.5, 20: 7.5}, learning_rate=0.001)
    make("fast", {1: 9.0, 10: 5.0, 20: 4.0}, {10: 5.5, 20: 6.5}, learning_rate=0.01)


@pytest.mark.slow
def test_figures_and_settings_that_differ_are_a_table(gpt2, two, here):
    status, out, err = gpt2("runs", "compare", "slow", "fast")
    assert (status, err) == (0, "")
    rows = {name: values for name, *values in map(cells, out.splitlines())}
    assert rows["step"] == ["20", "20"]
    assert rows["lowest held-out loss"] == ["7.500", "5.500"]
    assert rows["at step"] == ["20", "10"]
    assert rows["learning_rate"] == ["0.001", "0.01"]
    assert "steps" not in rows
    assert out.endswith("picture: compare-slow-fast.png\n")
    assert (here / "compare-slow-fast.png").is_file()


def test_the_curve_with_the_lower_loss_is_drawn_lower(gpt2, two):
    lines = gpt2("runs", "compare", "slow", "fast")[1].splitlines()
    chart = lines[: next(number for number, line in enumerate(lines) if "└" in line)]
    rows = {letter: [row for row, line in enumerate(chart) if letter in line] for letter in "AB"}
    assert max(rows["A"]) < min(rows["B"])
    assert any(line.strip() == "A slow" for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_chart_is_no_wider_than_the_terminal(gpt2, two, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = gpt2("runs", "compare", "slow", "fast")[1].splitlines()
    assert 30 < max(len(line) for line in lines if "─" in line or "┤" in line) <= columns


def test_without_a_terminal_nothing_is_coloured(gpt2, two):
    assert "\x1b" not in gpt2("runs", "compare", "slow", "fast")[1]


def test_runs_without_a_single_measurement_can_be_compared(gpt2):
    make("one")
    make("two")
    status, out, _ = gpt2("runs", "compare", "one", "two", "-o", "empty.png")
    assert status == 0
    assert out.endswith("picture: empty.png\n")


def test_an_unknown_run_is_one_line_and_status_1(gpt2, two):
    status, out, err = gpt2("runs", "compare", "slow", "fats")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "did you mean 'fast'?" in err
