import io
import sys
import tarfile
from types import ModuleType

import pytest

from gpt2kit.legacy import colab
from gpt2kit.runs import Run


@pytest.fixture
def drive(tmp_path):
    """Where Google Drive would be mounted, outside of the working directory."""
    (place := tmp_path / "drive" / "MyDrive").mkdir(parents=True)
    return place


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with a run."""
    run = tmp_path / "work" / "checkpoint" / "run1"
    (run / "steps").mkdir(parents=True)
    (run / "counter").write_text("7\n", encoding="utf-8")
    (run / "steps" / "weights").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def lose(here):
    (here / "checkpoint").rename(here.parent / "lost")


@pytest.mark.parametrize("copy_folder", [False, True], ids=["archive", "folder"])
def test_a_run_comes_back_as_it_was(here, drive, copy_folder):
    before = contents(here / "checkpoint")
    colab.run_to(drive, "run1", copy_folder)
    lose(here)
    colab.run_from(drive, "run1", copy_folder)
    assert contents(here / "checkpoint") == before


def test_the_archive_has_the_name_it_had(here, drive):
    colab.run_to(drive, "run1", False)
    assert [path.name for path in drive.iterdir()] == ["checkpoint_run1.tar"]
    assert (here / "checkpoint_run1.tar").is_file()
    assert colab.get_tarfile_name("checkpoint/run1") == "checkpoint_run1.tar"


@pytest.mark.parametrize("copy_folder", [False, True], ids=["archive", "folder"])
def test_a_run_can_be_saved_again(here, drive, copy_folder):
    colab.run_to(drive, "run1", copy_folder)
    (here / "checkpoint" / "run1" / "counter").write_text("9\n", encoding="utf-8")
    colab.run_to(drive, "run1", copy_folder)
    lose(here)
    colab.run_from(drive, "run1", copy_folder)
    assert (here / "checkpoint" / "run1" / "counter").read_text("utf-8") == "9\n"


def test_a_folder_is_not_mixed_with_the_one_that_is_here(drive):
    colab.run_to(drive, "run1", True)
    with pytest.raises(FileExistsError):
        colab.run_from(drive, "run1", True)


# --- a run that has been trained ---


@pytest.fixture
def run():
    """checkpoint/mine, whose step 1 is saved."""
    run = Run.named("mine")
    save(run, 1)
    return run


def save(run, step, keep=5):
    """Save a step as a training does: the run's model.safetensors is a link to the newest step's."""
    with run.saving(step, {}, best=False, keep=keep) as place:
        (place / "model.safetensors").write_bytes(f"the weights of step {step}".encode())


@pytest.mark.parametrize("copy_folder", [False, True], ids=["archive", "folder"])
def test_a_run_that_comes_back_is_sound(here, drive, run, copy_folder):
    colab.run_to(drive, "mine", copy_folder)
    lose(here)
    colab.run_from(drive, "mine", copy_folder)
    assert run.newest_sound() == (1, [])
    save(run, 2)
    assert run.newest_sound() == (2, [])


def test_an_archive_takes_the_place_of_the_run_that_is_here_which_is_kept(drive, run):
    colab.run_to(drive, "mine", False)
    save(run, 2)
    save(run, 3)
    colab.run_from(drive, "mine", False)
    assert (run.steps(), run.newest_sound()) == ([1], (1, []))
    kept = Run.named("mine-1")
    assert (kept.steps(), kept.newest_sound()) == ([1, 2, 3], (3, []))
    assert (kept.directory / "model.safetensors").read_bytes() == b"the weights of step 3"
    colab.run_from(drive, "mine", False)
    assert Run.named("mine-2").steps() == [1]
    assert kept.steps() == [1, 2, 3]


def test_an_archive_that_is_not_there_leaves_the_run_as_it_is(here, drive, run):
    before = contents(here / "checkpoint")
    with pytest.raises(FileNotFoundError):
        colab.run_from(drive, "mine", False)
    assert contents(here / "checkpoint") == before


def test_a_torn_archive_keeps_the_run(here, drive, run):
    (drive / "checkpoint_mine.tar").write_bytes(b"x" * 100)
    with pytest.raises(tarfile.TarError):
        colab.run_from(drive, "mine", False)
    assert run.newest_sound() == (1, [])


def test_a_folder_that_is_saved_again_has_no_steps_that_were_dropped_here(drive, run):
    colab.run_to(drive, "mine", True)
    save(run, 2, keep=1)
    save(run, 3, keep=1)
    colab.run_to(drive, "mine", True)
    there = Run(drive / "checkpoint" / "mine")
    assert (there.steps(), there.newest_sound()) == ([3], (3, []))
    assert contents(there.directory) == contents(run.directory)


# --- what cannot be ---


def test_an_archive_puts_nothing_beside_the_working_directory(here, drive):
    with tarfile.open(drive / "checkpoint_run1.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    with pytest.raises(tarfile.OutsideDestinationError):
        colab.run_from(drive, "run1", False)
    assert not (here.parent / "escaped").exists()


def test_a_file_goes_and_comes_back_also_out_of_a_folder(here, drive):
    (here / "gen").mkdir()
    for name in ("a.txt", "gen/b.txt"):
        (here / name).write_text(name, encoding="utf-8")
        colab.file_to(drive, name)
        (here / name).unlink()
        colab.file_from(drive, name)
        assert (here / name).read_text("utf-8") == name


@pytest.mark.parametrize(
    "call",
    [
        colab.is_mounted,
        colab.copy_checkpoint_to_gdrive,
        colab.copy_checkpoint_from_gdrive,
        lambda: colab.copy_file_to_gdrive("a.txt"),
        lambda: colab.copy_file_from_gdrive("a.txt"),
    ],
)
def test_without_a_mounted_drive_all_are_refused(call):
    with pytest.raises(AssertionError, match=r"^You must mount first using mount_gdrive\(\)$"):
        call()


def test_outside_of_colab_nothing_is_mounted():
    with pytest.raises(AssertionError, match=r"^You must be in Colaboratory to mount your Google Drive$"):
        colab.mount_gdrive()


def test_in_colab_the_drive_is_mounted_where_notebooks_expect_it(monkeypatch):
    mounted = []
    google, package, drive = ModuleType("google"), ModuleType("google.colab"), ModuleType("google.colab.drive")
    drive.mount = mounted.append
    google.__path__ = package.__path__ = []
    for module in (google, package, drive):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    colab.mount_gdrive()
    assert mounted == ["/content/drive"]
