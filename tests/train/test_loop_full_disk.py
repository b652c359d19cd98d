"""A full disk while training: the snapshot before is whole, the error says so, and the run can go on."""

import errno
import os
from contextlib import contextmanager

import pytest

from gpt2kit.errors import DiskFull

resource = pytest.importorskip("resource", reason="only Unix limits the size of a file")


@contextmanager
def largest_file(size):
    """Nobody in this process may write more than `size` bytes into a file; for what waits, that is a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tree(run):
    return {path.relative_to(run.directory).as_posix() for path in run.directory.rglob("*")}


@pytest.fixture
def filled(trainer_of, stop_after):
    """A run whose disk was full when step 4 was to be saved, after step 2; and the error. The weights take 250 kB."""
    trainer = trainer_of(save_every=2)
    with (
        largest_file(100_000) as fill,
        pytest.raises(DiskFull, match=r"step 4.*the snapshot of step 2 is whole.*make room") as caught,
    ):
        trainer.train(stop_after(3, fill))
    return trainer.run, str(caught.value)


def test_a_full_disk_leaves_the_snapshot_before_and_nothing_half(filled):
    run, _ = filled
    assert run.newest_sound() == (2, [])
    assert {name for name in tree(run) if name.startswith("steps/")} == {
        "steps/000000002",
        *(f"steps/000000002/{name}" for name in ("model.safetensors", "optimizer.safetensors", "state.json")),
    }
    assert not any("partial" in name or "link" in name for name in tree(run))


def test_a_full_disk_is_told_in_the_systems_words(filled):
    run, message = filled
    assert message.startswith(f"{run.directory}: no room")
    assert os.strerror(errno.EFBIG) in message


def test_with_room_again_the_run_goes_on_from_there(filled, trainer_of, resumed, never):
    run, _ = filled
    straight = trainer_of("straight", save_every=2)
    straight.train(never)
    resumed(run, save_every=2).train(never)
    for name in ("model", "optimizer"):
        contents = [(r.step_directory(6) / f"{name}.safetensors").read_bytes() for r in (run, straight.run)]
        assert contents[0] == contents[1]
    assert [entry["loss"] for entry in run.metrics("train")] == [
        entry["loss"] for entry in straight.run.metrics("train")
    ]


def test_a_disk_too_full_for_a_line_is_a_full_disk(trainer_of, never):
    trainer = trainer_of()
    trainer.run.metrics_path.symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=r"step 1.*nothing was saved before"):
        trainer.train(never)


def test_other_troubles_with_files_keep_their_name(trainer_of, never):
    trainer = trainer_of()
    trainer.run.metrics_path.mkdir()
    with pytest.raises(IsADirectoryError):
        trainer.train(never)
