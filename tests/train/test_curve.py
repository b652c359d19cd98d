import struct

import pytest

from gpt2kit.runs import Run
from gpt2kit.train.curve import draw_curve


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def size_of_png(path):
    """Width and height, from the header that the PNG specification puts first."""
    signature, _, kind, width, height = struct.unpack(">8sI4sII", path.read_bytes()[:24])
    assert (signature, kind) == (b"\x89PNG\r\n\x1a\n", b"IHDR")
    return width, height


@pytest.mark.parametrize("events", [["train", "validation"], ["train"], []], ids=["both", "no validation", "nothing"])
def test_a_curve_is_a_picture_whatever_was_measured(run, events):
    for event in events:
        for step in (1, 2):
            run.log({"event": event, "step": step, "loss": 3.0 / step})
    draw_curve(run)
    assert size_of_png(run.directory / "loss.png") == (960, 600)


def test_more_points_draw_another_picture(run):
    run.log({"event": "train", "step": 1, "loss": 3.0})
    draw_curve(run)
    before = (run.directory / "loss.png").read_bytes()
    run.log({"event": "train", "step": 2, "loss": 1.0})
    draw_curve(run)
    assert (run.directory / "loss.png").read_bytes() != before
