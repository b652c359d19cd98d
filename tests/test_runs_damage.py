"""Runs whose files were damaged, that begin again, that leave something behind; the rest is in test_runs.py."""

import json
import os
import shutil
import zlib

import pytest

from gpt2kit.errors import FormatError, ModelNotFound, RunLocked
from gpt2kit.runs import Run

WEIGHTS = b"weights " * 300_000  # more than the block that is read at a time


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "checkpoint" / "run1")


def save(run, *steps):
    for step in steps:
        with run.saving(step, {}, best=False, keep=9) as directory:
            (directory / "model.safetensors").write_bytes(b"%d " % step + WEIGHTS)
            (directory / "optimizer.safetensors").write_bytes(b"moments of step %d" % step)


def names(directory):
    return {path.name for path in directory.iterdir()}


# --- damage ---


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def flip_one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def put_a_directory_there(path):
    path.unlink()
    path.mkdir()


DAMAGE = [cut, lengthen, flip_one_bit, empty, os.remove, put_a_directory_there]
FILES = ["model.safetensors", "optimizer.safetensors"]


def damage(run, step, name="model.safetensors", how=flip_one_bit):
    how(run.step_directory(step) / name)


def test_the_fingerprint_of_a_file_is_its_length_and_crc_32(run):
    save(run, 10)
    files = json.loads((run.directory / "steps" / "000000010" / "state.json").read_bytes())["files"]
    contents = {"model.safetensors": b"10 " + WEIGHTS, "optimizer.safetensors": b"moments of step 10"}
    assert files == {name: [len(content), zlib.crc32(content)] for name, content in contents.items()}


def test_a_step_as_it_was_saved_is_sound(run):
    save(run, 10)
    run.check(10)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", DAMAGE, ids=lambda how: how.__name__)
def test_no_damage_to_a_file_goes_unnoticed(run, name, how):
    save(run, 10)
    damage(run, 10, name, how)
    with pytest.raises(FormatError, match=rf"000000010.{name}: torn or changed since it was saved"):
        run.check(10)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[1]", b"7", b"{}", b'{"files": 3}', b"\xff", b"[" * 99_999])
def test_no_damage_to_the_state_goes_unnoticed(run, content):
    save(run, 10)
    (run.step_directory(10) / "state.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"state\.json"):
        run.check(10)


def test_a_step_that_was_not_kept_cannot_be_checked(run):
    save(run, 10)
    with pytest.raises(ModelNotFound, match="no step 20; kept are: 10"):
        run.check(20)


def test_the_newest_sound_step_is_the_newest_if_nothing_is_wrong(run):
    save(run, 10, 20)
    assert run.newest_sound() == (20, [])


def test_a_new_run_has_no_sound_step_and_no_damage(run):
    assert run.newest_sound() == (None, [])


@pytest.mark.parametrize("how", DAMAGE, ids=lambda how: how.__name__)
def test_from_a_damaged_step_it_falls_back_to_the_one_before_and_tells(run, how):
    save(run, 10, 20)
    damage(run, 20, how=how)
    step, told = run.newest_sound()
    assert step == 10
    assert len(told) == 1
    assert str(run.directory / "steps" / "000000020" / "model.safetensors") in told[0]


def test_damage_is_told_of_every_step_on_the_way_back(run):
    save(run, 10, 20, 30)
    damage(run, 30)
    damage(run, 20, "optimizer.safetensors", cut)
    step, told = run.newest_sound()
    assert step == 10
    assert [("000000030" in told[0]), ("000000020" in told[1])] == [True, True]


def test_where_every_step_is_damaged_none_is_sound(run):
    save(run, 10, 20)
    for step in (10, 20):
        damage(run, step)
    step, told = run.newest_sound()
    assert (step, len(told)) == (None, 2)


@pytest.mark.parametrize("what", ["state.json", "."])
def test_a_newest_step_that_has_gone_is_told(run, what):
    save(run, 10, 20)
    place = run.directory / "steps" / "000000020" / what
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    step, told = run.newest_sound()
    assert step == 10
    assert len(told) == 1
    assert "000000020" in told[0]


def test_a_step_that_never_became_the_newest_is_not_gone_on_from(run):
    """A crash came between the files of step 20 and the line that names it."""
    save(run, 10, 20)
    (run.directory / "latest").write_text("000000010\n", encoding="utf-8")
    assert run.newest_sound() == (10, [])


def test_without_a_name_of_the_newest_step_the_last_one_is_gone_on_from(run):
    """A kill in the first save, or a copy that left the file out: what is there is not trained again."""
    save(run, 1, 2)
    (run.directory / "latest").unlink()
    assert run.newest_sound() == (2, [])


def test_going_back_names_the_step_and_what_was_best_then(run):
    for step, best in ((1, True), (2, False), (3, True)):
        with run.saving(step, {}, best=best, keep=9) as directory:
            (directory / "model.safetensors").write_bytes(b"%d" % step)
    run.rewind(2)
    assert (run.latest(), run.best()) == (2, 1)
    assert (run.directory / "model.safetensors").read_bytes() == b"2"
    assert (run.directory / "counter").read_text("utf-8") == "2\n"


def test_a_damaged_step_is_replaced_when_it_is_saved_again(run):
    save(run, 10, 20)
    damage(run, 20)
    save(run, 20)
    assert run.newest_sound() == (20, [])


@pytest.mark.parametrize("name", [".000000015.partial", "000000015"], ids=["half written", "half removed"])
def test_what_a_crash_left_half_is_cleaned_away_by_the_next_save(run, name):
    save(run, 10)
    half = run.directory / "steps" / name
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    save(run, 20)
    assert names(run.directory / "steps") == {"000000010", "000000020"}


# --- beginning again ---


@pytest.fixture
def trained(run):
    """A run with all that a run can have."""
    save(run, 10)
    run.log({"event": "train", "step": 10})
    for name in ("run.toml", "config.json", "loss.png", "lock"):
        (run.directory / name).write_text(name, encoding="utf-8")
    for name in ("samples", "tokens"):
        (run.directory / name).mkdir()
        (run.directory / name / "inside").write_bytes(b"inside")
    return run


def test_all_that_was_trained_is_moved_beside_and_stays_whole(trained):
    before = names(trained.directory)
    place = trained.set_aside()
    assert place == trained.directory.with_name("run1-1")
    assert names(place) == before - {"lock", "tokens"}
    assert Run(place).newest_sound() == (10, [])
    assert len(Run(place).metrics("train")) == 1


def test_the_lock_and_the_encoded_text_stay_for_the_run_that_begins(trained):
    trained.set_aside()
    assert names(trained.directory) == {"lock", "tokens"}
    assert (trained.directory / "tokens" / "inside").read_bytes() == b"inside"
    assert (trained.steps(), trained.latest(), trained.metrics("train")) == ([], None, [])


def test_nothing_that_was_set_aside_before_is_overwritten(trained):
    trained.directory.with_name("run1-2").mkdir()
    places = []
    for step in (20, 30, 40):
        places.append(trained.set_aside())
        save(trained, step)
    assert [place.name for place in places] == ["run1-1", "run1-3", "run1-4"]
    assert [Run(place).steps() for place in places] == [[10], [20], [30]]


def test_of_a_run_that_has_not_begun_nothing_is_set_aside(run):
    (run.directory / "tokens").mkdir(parents=True)
    with run.locked():
        assert run.set_aside() is None
    assert names(run.directory) == {"tokens", "lock"}
    assert names(run.directory.parent) == {"run1"}


def test_a_run_can_be_set_aside_while_it_is_locked(trained):
    with trained.locked():
        trained.set_aside()
        with pytest.raises(RunLocked), Run(trained.directory).locked():
            pass


# --- samples ---


def test_a_sample_lies_in_the_run_and_where_the_old_tools_put_it(run, tmp_path):
    run.save_sample(2000, "床前明月光\n", tmp_path / "samples")
    expected = "床前明月光\n".encode()
    assert (run.directory / "samples" / "samples-2000").read_bytes() == expected
    assert (tmp_path / "samples" / "run1" / "samples-2000").read_bytes() == expected


def test_a_sample_is_beside_the_runs_by_default(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run.save_sample(5, "text")
    assert (tmp_path / "samples" / "run1" / "samples-5").read_bytes() == b"text"


def test_a_later_sample_of_the_same_step_takes_its_place(run, tmp_path):
    for text in ("first", "second"):
        run.save_sample(5, text, tmp_path / "samples")
    assert (run.directory / "samples" / "samples-5").read_bytes() == b"second"


# --- what a lock leaves behind ---


@pytest.mark.parametrize("mistake", [None, ZeroDivisionError])
def test_a_run_that_nothing_came_of_leaves_no_directory(run, mistake):
    try:
        with run.locked():
            if mistake:
                raise mistake
    except ZeroDivisionError:
        pass
    assert not run.directory.exists()


def test_a_run_that_something_came_of_stays(run):
    with run.locked():
        (run.directory / "run.toml").write_bytes(b"")
    assert names(run.directory) >= {"run.toml"}


def test_a_trainer_that_was_refused_removes_nothing(run):
    with run.locked():
        with pytest.raises(RunLocked), Run(run.directory).locked():
            pass
        assert names(run.directory) == {"lock"}
        with pytest.raises(RunLocked), Run(run.directory).locked():
            pass


def test_a_kill_amid_setting_aside_leaves_nothing_in_two_places(trained, monkeypatch):
    """Whatever was moved by then, the next trainer finds the run whole, where it was being moved to."""
    before, moved = names(trained.directory) - {"lock", "tokens"}, []

    def dying(source, target, replace=os.replace):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(source)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            trained.set_aside()
    assert len(moved) == 2
    with pytest.warns(UserWarning, match=r"run1 was being set aside .* is in .*run1-1"), trained.locked():
        assert names(trained.directory) <= {"lock", "tokens"}
    aside = trained.directory.with_name("run1-1")
    assert names(aside) == before
    assert Run(aside).newest_sound()[1] == []


def test_a_run_behind_a_link_is_set_aside_on_its_own_disk(trained, tmp_path):
    link = tmp_path / "here"
    link.symlink_to(trained.directory, target_is_directory=True)
    assert Run(link).set_aside() == trained.directory.with_name("run1-1")
    assert not (tmp_path / "here-1").exists()
