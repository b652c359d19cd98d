"""Tell how the runs stand, and compare some of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gpt2kit.config.toml_file import read_toml
from gpt2kit.config.training import ENDLESS
from gpt2kit.errors import ConfigError, Gpt2kitError, MissingExtra, ModelNotFound
from gpt2kit.formats.huggingface import read_tokenizer_files
from gpt2kit.formats.registry import recognise
from gpt2kit.runs import RUNS, STATE, Run
from gpt2kit.tokenizer.open import holds_tokenizer, holds_vocabulary, open_tokenizer
from gpt2kit.tokenizer.vocabulary import read_vocabulary
from gpt2kit.train.curve import EMPTY, Curve, draw_curves, read_curve

P = ParamSpec("P")
T = TypeVar("T")
SIGNS = ("latest", "metrics.jsonl", "run.toml", "steps", "lock")  # a directory with any of them is a run
OTHER_VOCABULARY = (
    "the vocabularies differ: a loss per token says nothing across them; compare bits per byte, with gpt2 evaluate"
)
KERNEL_LOCKS = Path("/proc/locks")  # Linux only


@dataclass(frozen=True)
class RunSummary:
    """How a run stands, as far as its files tell; None is unknown."""

    name: str
    step: int | None
    """The newest step that was measured or saved."""
    steps: int | None
    """How many were asked for; None where that is not known, or somebody will interrupt it."""
    loss: float | None
    validation_loss: float | None
    best_step: int | None
    size_bytes: int
    """On disk; a file under two names counts once."""
    saved: float | None
    """When the newest snapshot was written, in seconds since 1970."""
    training: bool | None
    """Whether a process on this machine is training the run."""
    notes: tuple[str, ...]
    """What is damaged or lost."""


@dataclass(frozen=True)
class Comparison:
    """Some runs side by side, by the names that were asked for."""

    curves: Mapping[str, Curve]
    settings: Mapping[str, tuple[Any, ...]]
    """The settings in which the runs differ: one value a run, None where it is unknown."""
    notes: tuple[str, ...]
    picture: Path


def list_runs(runs: Path = RUNS) -> list[RunSummary]:
    """Every run in `runs`, the one that was touched last first. A damaged one is told as far as it is known."""
    return [summary_of(run) for run in sorted(runs_in(runs), key=_touched, reverse=True)]


def runs_in(runs: Path = RUNS) -> list[Run]:
    """The runs in `runs`, in no order; nothing in them is read."""
    return [Run(place) for place in runs.glob("*") if _is_run(place)]


def other_programs_runs(runs: Path = RUNS) -> list[str]:
    """The names of runs that nshepperd's code or gpt-2-simple left in `runs`."""
    return sorted(place.name for place in runs.glob("*") if place.is_dir() and not _is_run(place) and recognise(place))


def compare_runs(names: Sequence[str], picture: Path | None = None) -> Comparison:
    """Draw the curves of two or more runs into one PNG, and tell in what their settings differ.

    Args:
        names: runs in checkpoint/, or paths of run directories.
        picture: the file to draw; compare-A-B.png in the current directory if None.
    """
    if not find_spec("matplotlib"):
        raise MissingExtra("the picture of runs", "train")
    runs = {name: _find(name) for name in names}
    if len(runs) < 2:
        raise ConfigError(f"got {', '.join(runs) or 'no run'}; a comparison takes two or more; `gpt2 runs` lists them")
    picture = picture or Path("-".join(["compare", *(run.directory.resolve().name for run in runs.values())]) + ".png")
    if picture.suffix.lower() != ".png":
        raise ConfigError(f"{picture}: the picture is a PNG; give it a name that ends in .png")
    notes: list[str] = []
    curves = {name: read_curve(run) for name, run in runs.items()}
    for name, curve in curves.items():
        notes += [f"{name}: {note}" for note in _gaps(curve)]
    settings = [_unless_damaged(notes, _settings, run) or {} for run in runs.values()]
    vocabularies = [_unless_damaged(notes, _vocabulary, run) for run in runs.values()]
    if any(one != other for one in vocabularies for other in vocabularies if one and other):
        notes.append(OTHER_VOCABULARY)
    draw_curves(curves, picture)
    return Comparison(curves, _differences(settings), tuple(notes), picture)


def _is_run(place: Path) -> bool:
    return any((place / sign).exists() for sign in SIGNS)


def _touched(run: Run) -> float:
    places = [run.directory / sign for sign in SIGNS]
    return max((place.stat().st_mtime for place in places if place.exists()), default=0)


def _find(name: str) -> Run:
    for place in (Path(name), RUNS / name):
        if _is_run(place):
            return Run(place)
    known = sorted(place.name for place in RUNS.glob("*") if _is_run(place))
    near = get_close_matches(name, known)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"runs here: {', '.join(known) or 'none'}"
    raise ModelNotFound(f"no run {name!r}: no such run directory, and none of that name in {RUNS}/; {hint}")


def summary_of(run: Run) -> RunSummary:
    """How a run stands. A damaged one is told as far as it is known."""
    notes: list[str] = []
    latest = _unless_damaged(notes, run.latest)
    saved = None if latest is None else _unless_damaged(notes, _time_of, run, latest)
    steps = (_unless_damaged(notes, _settings, run) or {}).get("steps")
    training = _in_training(run)
    curve = _unless_damaged(notes, read_curve, run) or EMPTY
    step = max(curve.last_step(), latest or 0) or None
    if training is False and not notes and (step or 0) > (latest or 0):
        notes.append(f"stopped without saving; going on starts again at step {latest or 0:,}")
    notes += _gaps(curve)
    return RunSummary(
        name=run.name,
        step=step,
        steps=steps if isinstance(steps, int) and steps != ENDLESS else None,
        loss=float(curve.learnt.losses[-1]) if len(curve.learnt) else None,
        validation_loss=float(curve.held_out.losses[-1]) if len(curve.held_out) else None,
        best_step=_unless_damaged(notes, run.best),
        size_bytes=_size_bytes(run.directory),
        saved=saved,
        training=training,
        notes=tuple(notes),
    )


def _unless_damaged(notes: list[str], read: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
    """What `read` finds; what is wrong instead becomes a note."""
    try:
        return read(*arguments, **named)
    except (Gpt2kitError, OSError) as error:
        notes.append(str(error))
        return None


def _time_of(run: Run, step: int) -> float:
    return (run.step_directory(step) / STATE).stat().st_mtime


def _settings(run: Run) -> dict[str, Any]:
    """The settings in run.toml, those in its tables among them; none if there is no such file."""
    path = run.directory / "run.toml"
    table = read_toml(path) if path.exists() else {}
    inner = {name: value for entry in table.values() if isinstance(entry, dict) for name, value in entry.items()}
    return {name: value for name, value in table.items() if not isinstance(value, dict)} | inner


def _differences(settings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    names = dict.fromkeys(name for one in settings for name in one if name != "run_name")
    rows = {name: tuple(one.get(name) for one in settings) for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def _vocabulary(run: Run) -> Mapping[str, int] | str | None:
    """What is equal for runs of equal tokens."""
    files, origin = read_tokenizer_files(run.directory), str(run.directory)
    if holds_vocabulary(files):
        return read_vocabulary(files, origin).ids
    return open_tokenizer(files, origin).sha256 if holds_tokenizer(files) else None


def _gaps(curve: Curve) -> list[str]:
    return [f"metrics.jsonl: lines without an event or a loss: {curve.unreadable:,}"] if curve.unreadable else []


def _in_training(run: Run) -> bool | None:
    """Whether a process on this machine holds the run's lock; None where the system does not tell.

    The lock is not tried: that could turn away a trainer that starts in this very moment.
    """
    lock = run.directory / "lock"
    if not lock.exists():
        return False
    if not KERNEL_LOCKS.exists():
        return None
    # A line: "1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF". Overlays and btrfs show another device than stat.
    held = {line.split()[-3].rpartition(":")[2] for line in KERNEL_LOCKS.read_text(encoding="ascii").splitlines()}
    return str(lock.stat().st_ino) in held


def _size_bytes(directory: Path) -> int:
    sizes = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                status = Path(folder, name).lstat()
            except FileNotFoundError:  # a trainer drops old steps as it goes
                continue
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
