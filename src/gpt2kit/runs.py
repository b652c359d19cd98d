"""A training run on disk: where everything lies, and how a step gets there whole or not at all.

checkpoint/run1/                 a model directory: every command that takes a model takes it
    config.json, tokenizer files
    model.safetensors            hard link to the newest step's
    run.toml                     the resolved settings
    counter                      the newest step, a line
    metrics.jsonl                one object a line: {"event", "step", "time", ...}
    loss.png  lock
    samples/samples-2000         what the model wrote at a step
    tokens/, validation-tokens/  the encoded texts, where they did not come encoded already
    latest  best                 the name of a step directory, a line each
    steps/000002000/             model.safetensors, optimizer.safetensors, state.json (which knows their checksums)
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from gpt2kit.atomic import replace_bytes, sync_directory
from gpt2kit.errors import ConfigError, FormatError, ModelNotFound, RunLocked
from gpt2kit.json_object import read_object

RUNS = Path("checkpoint")
SAMPLES = Path("samples")
MODEL = "model.safetensors"
STATE = "state.json"
HALF_FILLED = ".half-filled"  # in a directory that a run is just being set aside in
ENCODED = ("tokens", "validation-tokens")
NAME = re.compile(r"[\w.-]+(?: [\w.-]+)*")


def is_run(directory: Path) -> bool:
    """Whether `directory` is a run of ours with a snapshot; other programs' runs have no steps/."""
    return bool(Run(directory).steps())


class Run:
    """One run directory. Torch-free: it knows files and steps, not what is in them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = directory.name
        self.metrics_path = directory / "metrics.jsonl"

    @classmethod
    def named(cls, name: str, runs: Path = RUNS) -> Run:
        """The run of this name, there or not yet. Raises ConfigError for a name that is not a plain directory name."""
        if not NAME.fullmatch(name) or name in (".", ".."):
            raise ConfigError(
                f"run name {name!r}: use letters, digits, dots, dashes, underscores and single blanks only"
            )
        return cls(runs / name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only trainer of this run. The lock dies with the process. Raises RunLocked."""
        from filelock import FileLock, Timeout  # takes longer to load than to find a run

        self.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.directory / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunLocked(
                f"{self.directory}: another process is training this run; wait for it, or name another run"
            ) from None
        try:
            self._finish_setting_aside()
            yield
        finally:
            if [place.name for place in self.directory.iterdir()] == ["lock"]:  # nothing came of it
                shutil.rmtree(self.directory, ignore_errors=True)
            lock.release()

    def steps(self) -> list[int]:
        """Steps with a whole snapshot, oldest first."""
        places = (self.directory / "steps").glob("[0-9]*")
        return sorted(int(place.name) for place in places if place.name.isdecimal() and (place / STATE).is_file())

    def latest(self) -> int | None:
        """The newest step, or None before the first save."""
        return self._pointer("latest")

    def best(self) -> int | None:
        """The step with the lowest validation loss, or None if nothing was validated."""
        return self._pointer("best")

    def newest_sound(self) -> tuple[int | None, list[str]]:
        """The newest step whose files are what was saved, not after `latest`; and what is wrong with newer ones.

        Without `latest`, which a kill in the first save or a bad copy leaves out, any step may be the newest.
        """
        damage: list[str] = []
        steps, newest = self.steps(), self.latest()
        if newest is not None and newest not in steps:
            damage.append(f"{self._place(newest)}: the newest step is not there")
        for step in reversed([step for step in steps if newest is None or step <= newest]):
            try:
                self.check(step)
            except FormatError as error:
                damage.append(str(error))
            else:
                return step, damage
        return None, damage

    def check(self, step: int) -> None:
        """Read a step's files through. Raises FormatError where one is not what was saved."""
        files = self.state(step).get("files")
        if not isinstance(files, dict):
            raise FormatError(self._place(step) / STATE, None, "knows no checksums of the step's files")
        for name, saved in files.items():
            path = self.step_directory(step) / str(name)
            found = _fingerprint(path) if path.is_file() else None
            if found != saved:
                problem = f"torn or changed since it was saved: found {_told(found)}, expected {_told(saved)}"
                raise FormatError(path, None, problem)

    def step_directory(self, step: int) -> Path:
        """Where a step lies. Raises ModelNotFound for a step that was not kept."""
        directory = self._place(step)
        if not (directory / STATE).is_file():
            kept = ", ".join(map(str, self.steps())) or "none"
            raise ModelNotFound(f"{self.directory}: there is no step {step}; kept are: {kept}")
        return directory

    def state(self, step: int) -> dict[str, Any]:
        """What `saving` was told about a step."""
        path = self.step_directory(step) / STATE
        return read_object(path)

    @contextmanager
    def saving(self, step: int, state: Mapping[str, Any], *, best: bool, keep: int) -> Iterator[Path]:
        """A directory to put the files of a step in; it becomes the newest step when the block ends without an error.

        Afterwards at most `keep` newest steps and the best one are left.
        """
        place = self._place(step)
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            length = self._metrics_bytes()
            files = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
            best_step = step if best else self.best()
            whole = {**state, "step": step, "best_step": best_step, "metrics_bytes": length, "files": files}
            replace_bytes(partial / STATE, json.dumps(whole).encode())
            shutil.rmtree(place, ignore_errors=True)
            os.replace(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_directory(place.parent)
        self._publish(place, best)
        self._prune(keep)

    def set_aside(self) -> Path | None:
        """Move all that was trained to a directory beside this one, and begin again. None if there was nothing."""
        left = self._left()
        if not left:
            return None
        home = self.directory.resolve() if self.directory.is_symlink() else self.directory  # renames stay on one disk
        taken = (home.with_name(f"{home.name}-{number}") for number in count(1))
        place = next(path for path in taken if not path.exists())
        place.mkdir()
        (place / HALF_FILLED).touch()
        self._fill(place, left)
        return place

    def _finish_setting_aside(self) -> None:
        """What a kill amid `set_aside` left half here and half there is one again."""
        home = self.directory.resolve()
        for mark in home.parent.glob(f"{glob.escape(home.name)}-*/{HALF_FILLED}"):
            self._fill(mark.parent, self._left())
            what = f"{self.directory} was being set aside when that was killed"
            warnings.warn(f"{what}; what the run had is in {mark.parent}", stacklevel=2)

    def _fill(self, place: Path, left: Iterable[str]) -> None:
        for name in left:
            os.replace(self.directory / name, place / name)
        (place / HALF_FILLED).unlink()

    def _left(self) -> set[str]:
        """What there is, but for the lock and the texts that are learnt next."""
        return {path.name for path in self.directory.iterdir()} - {"lock", *ENCODED}

    def save_sample(self, step: int, text: str, samples: Path = SAMPLES) -> None:
        """Keep what the model wrote here, and, if that can be, in samples/<run>/samples-<step> as the old tools did."""
        _put(self.directory / "samples", step, text)
        try:
            _put(samples / self.name, step, text)
        except OSError as error:  # no reason to lose what was learnt
            warnings.warn(f"{samples / self.name}: {error.strerror}; samples are in {self.directory}", stacklevel=2)

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one event to metrics.jsonl."""
        with self.metrics_path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(dict(event)) + "\n")

    def rewind(self, step: int) -> None:
        """Forget what came after a step, to go on from there."""
        state = self.state(step)
        if step != self.latest():  # first: after a crash from here on, a resume comes here again
            self._publish(self._place(step), best=False)
        self.cut_metrics(state["metrics_bytes"])
        if (best := state["best_step"]) in self.steps():
            replace_bytes(self.directory / "best", f"{self._place(best).name}\n".encode())
        else:
            (self.directory / "best").unlink(missing_ok=True)

    def cut_metrics(self, length: int) -> None:
        """Forget events after the snapshot that a resume starts from."""
        if self.metrics_path.exists() and self.metrics_path.stat().st_size > length:
            os.truncate(self.metrics_path, length)

    def metrics(self, event: str) -> list[dict[str, Any]]:
        """All events of one kind, oldest first; a torn last line is ignored."""
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_text(encoding="utf-8").split("\n")[:-1]
        try:
            return [entry for entry in map(json.loads, lines) if entry["event"] == event]
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(self.metrics_path, None, f"a line is not an event: {error}; remove the line") from None

    def _metrics_bytes(self) -> int:
        """How long metrics.jsonl is, once it is safely that long."""
        if not self.metrics_path.exists():
            return 0
        with self.metrics_path.open("rb+") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def _place(self, step: int) -> Path:
        return self.directory / "steps" / f"{step:09d}"

    def _pointer(self, name: str) -> int | None:
        path = self.directory / name
        if not path.is_file():
            return None
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if not (text.isascii() and text.isdecimal()):
            raise FormatError(
                path, None, f"found {text!r:.40}, expected the number of a step; kept are: {self.steps()}"
            )
        return int(text)

    def _publish(self, place: Path, best: bool) -> None:
        """Point to the new step: first the model link, then the names."""
        link = self.directory / f".{MODEL}.link"
        link.unlink(missing_ok=True)
        try:
            os.link(place / MODEL, link)
        except OSError:  # a file system without hard links
            shutil.copyfile(place / MODEL, link)
        os.replace(link, self.directory / MODEL)
        replace_bytes(self.directory / "counter", f"{int(place.name)}\n".encode())
        if best:
            replace_bytes(self.directory / "best", f"{place.name}\n".encode())
        # Last: a resume starts from what `latest` names, and must find all the rest done.
        replace_bytes(self.directory / "latest", f"{place.name}\n".encode())

    def _prune(self, keep: int) -> None:
        """Drop steps that are too old, and those after the newest: a crash left them, and another way was taken."""
        newest = self.latest() or 0
        kept = [step for step in self.steps() if step <= newest][-keep:]
        for step in set(self.steps()) - {*kept, self.best()}:
            (self._place(step) / STATE).unlink()  # first: what a kill leaves of a step is none, and goes next time
        for place in (self.directory / "steps").iterdir():
            half = place.name.isdecimal() and not (place / STATE).is_file()
            if half or place.name.endswith(".partial"):
                shutil.rmtree(place, ignore_errors=True)


def _put(directory: Path, step: int, text: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    replace_bytes(directory / f"samples-{step}", text.encode())


def _told(fingerprint: Any) -> str:
    match fingerprint:
        case [int(length), int(checksum)]:
            return f"{length:,} bytes of CRC-32 {checksum:08x}"
    return "nothing" if fingerprint is None else repr(fingerprint)


def _fingerprint(path: Path) -> list[int]:
    """Length and CRC-32 of a file: enough to tell a torn one."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
        return [file.tell(), checksum]
