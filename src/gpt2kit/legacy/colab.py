"""gpt-2-simple's functions for Google Colab: runs and files, to a mounted Google Drive and back."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from importlib import import_module
from pathlib import Path

from gpt2kit.runs import Run

MOUNT_POINT = Path("/content/drive")
DRIVE = MOUNT_POINT / "MyDrive"


def mount_gdrive() -> None:
    """Mount the user's Google Drive, in Colab."""
    if "google.colab" not in sys.modules:
        raise AssertionError("You must be in Colaboratory to mount your Google Drive")
    import_module("google.colab.drive").mount(str(MOUNT_POINT))


def is_mounted() -> None:
    """Raise AssertionError unless Google Drive is mounted."""
    if not MOUNT_POINT.is_dir():
        raise AssertionError("You must mount first using mount_gdrive()")


def get_tarfile_name(checkpoint_folder: str) -> str:
    """The name of the archive of a run: checkpoint/run1 gives checkpoint_run1.tar."""
    return checkpoint_folder.replace(os.path.sep, "_") + ".tar"


def copy_checkpoint_to_gdrive(run_name: str = "run1", copy_folder: bool = False) -> None:
    """Copy a run to Google Drive, as an archive or as it is."""
    is_mounted()
    run_to(DRIVE, run_name, copy_folder)


def copy_checkpoint_from_gdrive(run_name: str = "run1", copy_folder: bool = False) -> None:
    """Bring a run back from Google Drive."""
    is_mounted()
    run_from(DRIVE, run_name, copy_folder)


def copy_file_to_gdrive(file_path: str) -> None:
    """Copy a file to Google Drive."""
    is_mounted()
    file_to(DRIVE, file_path)


def copy_file_from_gdrive(file_path: str) -> None:
    """Copy a file from Google Drive to here."""
    is_mounted()
    file_from(DRIVE, file_path)


def run_to(drive: Path, run_name: str, copy_folder: bool) -> None:
    """Copy checkpoint/RUN_NAME below `drive`. A folder that is there already is brought up to date."""
    folder = os.path.join("checkpoint", run_name)
    if copy_folder:
        shutil.copytree(folder, drive / folder, dirs_exist_ok=True)
        for step in (drive / folder / "steps").glob("*"):  # that were dropped here, too
            if not Path(folder, "steps", step.name).exists():
                shutil.rmtree(step)
        return
    archive = get_tarfile_name(folder)
    with tarfile.open(archive, "w") as tar:
        tar.add(folder)
    file_to(drive, archive)


def run_from(drive: Path, run_name: str, copy_folder: bool) -> None:
    """Bring checkpoint/RUN_NAME back: a folder where there is none (FileExistsError), an archive in place of one."""
    folder = os.path.join("checkpoint", run_name)
    if copy_folder:
        shutil.copytree(drive / folder, folder)
        return
    archive = get_tarfile_name(folder)
    file_from(drive, archive)
    with tarfile.open(archive) as tar:
        if os.path.isdir(folder):  # else what is unpacked would be written through the links between its files
            Run(Path(folder)).set_aside()
        tar.extractall(filter="data")


def file_to(drive: Path, file_path: str) -> None:
    """Copy a file to the same path below `drive`."""
    target = Path(f"{drive}/{file_path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file_path, target)


def file_from(drive: Path, file_path: str) -> None:
    """Copy a file from the same path below `drive`."""
    shutil.copyfile(f"{drive}/{file_path}", file_path)
