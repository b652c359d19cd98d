"""A disk that is full when a snapshot is to be written: nothing is lost, and with room the run goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2kit.runs import Run

TEXT = "The cat sat on the mat. The dog ate the fog, and then the cat ate the dog; so it goes.\n" * 20
OPTIONS = (
    *("--steps", "6", "--save-every", "2", "--keep", "1", "--batch-size", "2", "--window", "16", "--sample-every", "0"),
    *("--validation-share", "0", "--learning-rate", "1e-3", "--precision", "fp32", "--dropout", "0.1"),
)
SNAPSHOT = 900_000  # bytes: weights and both moments of 74,280 parameters

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix system")]


@pytest.fixture
def train(model):
    """Train in a directory, in a process of its own."""

    def go(place, *words, **how):
        command = [sys.executable, "-m", "gpt2kit", "finetune", "text.txt", "--model", model, *OPTIONS, *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=place, env=environment, capture_output=True, encoding="utf-8", **how)

    return go


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a megabyte and a half, and a way to make it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={round(1.7 * SNAPSHOT)}", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only an administrator of Linux can make a small disk")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,size=20m", str(place)], check=True)
    subprocess.run(["umount", str(place)], check=True)


def limit_files():
    """Let this process write no file as long as the weights: to what waits, that is a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (SNAPSHOT // 4, resource.RLIM_INFINITY))


def newest_files(place):
    run = Run(place / "checkpoint" / "run1")
    return [(run.step_directory(6) / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]


def assert_told(done, run):
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("gpt2: checkpoint/run1: no room for what step 4 writes (")
    assert "; the snapshot of step 2 is whole; make room, and the same command goes on from there" in told
    assert run.newest_sound() == (2, [])
    assert [path.name for path in (run.directory / "steps").iterdir()] == ["000000002"]


def test_a_full_disk_loses_nothing(small_disk, train, tmp_path):
    place, make_room = small_disk
    for directory in (place, tmp_path):
        (directory / "text.txt").write_text(TEXT, encoding="utf-8")
    run = Run(place / "checkpoint" / "run1")
    assert_told(train(place), run)
    assert_told(train(place), run)  # still no room
    make_room()
    done = train(place)
    assert (done.returncode, "steps    2 of 6 done" in done.stderr) == (0, True)
    assert train(tmp_path).returncode == 0
    assert newest_files(place) == newest_files(tmp_path)


def test_a_file_that_may_not_grow_is_a_full_disk_too(train, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    assert train(tmp_path, "--steps", "2").returncode == 0
    assert_told(train(tmp_path, preexec_fn=limit_files), Run(Path(tmp_path, "checkpoint", "run1")))
