import os
from contextlib import contextmanager, redirect_stderr

import pytest

from gpt2kit.legacy.bars import bars
from gpt2kit.progress import Progress


@pytest.fixture
def drawn(capsys):
    """What is on the terminal after some reports, line by line; a bar that is drawn again starts with its task."""

    def draw(*reports):
        with bars() as report:
            for one in reports:
                report(one)
        shown = capsys.readouterr()
        assert shown.out == ""
        return [line.split("\r")[-1] for line in shown.err.split("\n")]

    return draw


def test_a_download_has_a_bar_a_file_as_it_had(drawn):
    fetched = [Progress(f"124M/{name}", 2_000_000, 2_000_000, "byte") for name in ("encoder.json", "vocab.bpe")]
    first, second, end = drawn(*fetched)
    assert first.startswith("Fetching encoder.json: 100%|")
    assert "2.00M/2.00M" in first
    assert second.startswith("Fetching vocab.bpe: 100%|")
    assert end == ""


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        ("124M/model.ckpt.index", "Fetching model.ckpt.index"),
        ("verify 124M/model.ckpt.index", "Verifying model.ckpt.index"),
        ("verify 124M", "Verify 124M"),
        (
            "124M/vocab.bpe: the connection to x broke; waiting",
            "Fetching vocab.bpe: the connection to x broke; waiting",
        ),
        ("encode", "Encode"),
    ],
)
def test_a_bar_says_what_is_going_on(drawn, task, shown):
    assert drawn(Progress(task, 1, 1, "byte"))[0].startswith(f"{shown}: 100%|")


def test_a_bar_is_100_columns_wide(drawn):
    assert len(drawn(Progress("encode", 1, 2, "byte"))[0]) == 100


def test_training_has_no_bar(drawn):
    assert drawn(Progress("train", 1, 2, "step")) == [""]


def test_what_was_half_done_is_left_as_it_is(drawn):
    line, end = drawn(Progress("encode", 1, 4, "byte"))
    assert "25%" in line
    assert end == ""


def test_a_task_that_comes_again_has_another_bar(drawn):
    validation = [Progress("validate", done, 2, "window") for done in (0, 1, 2)]
    assert len(drawn(*validation, *validation)) == 3


def test_a_last_report_that_comes_twice_is_one_bar(drawn):
    assert len(drawn(Progress("encode", 2, 2, "byte"), Progress("encode", 2, 2, "byte"))) == 2


def test_an_amount_that_is_not_known_is_counted(drawn):
    assert "3.00MB" in drawn(Progress("encode", 3_000_000, None, "byte"))[0]


# --- where nobody looks any more ---


@contextmanager
def one_who_looks():
    """Standard error is a pipe; the call that this gives closes the end that reads it."""
    read, write = os.pipe()
    nobody = os.open(os.devnull, os.O_WRONLY)
    with os.fdopen(write, "w", encoding="utf-8", buffering=1) as stream, redirect_stderr(stream):
        yield lambda: os.close(read)
        os.dup2(nobody, write)  # for what is left to write
    os.close(nobody)


def test_work_goes_on_where_nobody_ever_looked():
    with one_who_looks() as go, bars() as report:
        go()
        for done in range(5):
            report(Progress("encode", done, 4, "byte"))
        report(Progress("train", 0, 4, "step"))


@pytest.mark.parametrize("total", [4, None])
def test_work_goes_on_where_somebody_stopped_looking(total):
    with one_who_looks() as go, bars() as report:
        report(Progress("encode", 1, total, "byte"))
        go()
        report(Progress("encode", 2, total, "byte"))


def test_a_bar_that_cannot_be_ended_hides_no_error():
    with one_who_looks() as go, pytest.raises(ValueError, match="the real one"), bars() as report:  # noqa: PT012
        report(Progress("encode", 1, 4, "byte"))
        go()
        raise ValueError("the real one")
