"""GET /api/runs and /api/runs/{name}: how the training runs stand, for the page that draws them.

Handlers are plain functions: the framework calls them on a thread of its pool, as they read files.
A trainer may write while they read: a file can be longer the next time, or gone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from fastapi import APIRouter, Request

from gpt2kit.jobs.runs import RunSummary, list_runs, other_programs_runs, runs_in, summary_of
from gpt2kit.runs import Run
from gpt2kit.serve.answers import ErrorAnswer
from gpt2kit.serve.errors import HttpError
from gpt2kit.train.curve import EMPTY, Points, read_curve

MOST_POINTS = 500  # of a curve; a chart is hardly wider in pixels
MOST_SAMPLES = 20
LONGEST_SAMPLE = 20_000  # characters
HUGE = 1e18  # no count and no speed

router = APIRouter()


@dataclass(frozen=True)
class RunList:
    """Every run, the one that was touched last first."""

    runs: list[RunSummary]
    other_programs: list[str]
    """Names of runs that older programs left; they can be served as models, but tell nothing of their training."""


@dataclass(frozen=True)
class Losses:
    """Losses in nats a token, and the steps they were measured at, oldest first."""

    steps: list[float | None]
    losses: list[float | None]


@dataclass(frozen=True)
class Sample:
    """What the model wrote at a step."""

    step: int
    text: str


@dataclass(frozen=True)
class RunDetails(RunSummary):
    """How a run stands, how it came there, and what it wrote on the way."""

    learnt: Losses
    """At most 500 points, each the mean of its neighbourhood."""
    held_out: Losses
    samples: list[Sample]
    """The newest first, at most 20."""
    tokens_per_second: list[float | None] | None
    """The speed at the steps of `learnt`."""
    tokens_per_step: float | None


@router.get("/api/runs", summary="List the training runs")
def every_run(request: Request) -> RunList:
    """Every run in the server's directory of runs."""
    runs: Path = request.app.state.runs
    others = [_sendable(name) for name in other_programs_runs(runs)]
    return RunList([_sendable_summary(summary) for summary in list_runs(runs)], others)


@router.get(
    "/api/runs/{name}",
    summary="Tell one training run's curves and samples",
    responses={404: {"model": ErrorAnswer, "description": "There is no run of this name."}},
)
def one_run(name: str, request: Request) -> RunDetails:
    """A run, its losses over the steps, and what it wrote."""
    runs: Path = request.app.state.runs
    known = {_sendable(run.name): run for run in runs_in(runs)}
    if name not in known:  # so no name leads to a place that is not listed
        near = get_close_matches(name, known)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "GET /api/runs lists them"
        raise HttpError(404, f"there is no run {name!r}; {hint}", code="run_not_found", param="name")
    run = known[name]
    try:
        curve = read_curve(run)
    except OSError:  # the summary has a note of it
        curve = EMPTY
    speeds, tokens_per_step = _speeds(run)
    aligned = Points(curve.learnt.steps, np.array([speeds.get(step, math.nan) for step in curve.learnt.steps.tolist()]))
    return RunDetails(
        **asdict(_sendable_summary(summary_of(run))),
        learnt=_losses(curve.learnt),
        held_out=_losses(curve.held_out),
        samples=list(islice(_samples(run), MOST_SAMPLES)),
        tokens_per_second=_finite(aligned.thinned(MOST_POINTS).losses) if speeds else None,
        tokens_per_step=tokens_per_step,
    )


def _losses(points: Points) -> Losses:
    points = points.thinned(MOST_POINTS)
    return Losses(_finite(points.steps), _finite(points.losses))


def _finite(numbers: np.ndarray) -> list[float | None]:
    """JSON knows no NaN and no infinity."""
    return [number if math.isfinite(number) else None for number in numbers.tolist()]


def _speeds(run: Run) -> tuple[dict[float, float], float | None]:
    """Tokens a second by step, and tokens a step; lines that tell neither are passed over."""
    speeds: dict[float, float] = {}
    tokens_per_step = None
    for event in _train_events(run):
        step, speed, tokens = (event.get(key) for key in ("step", "tokens_per_second", "tokens"))
        if _is_number(step) and _is_number(speed):
            speeds[step] = speed
        if _is_number(step) and _is_number(tokens) and step > 0:
            tokens_per_step = tokens / step
    return speeds, tokens_per_step


def _train_events(run: Run) -> Iterator[dict[str, Any]]:
    text = run.metrics_path.read_text(encoding="utf-8", errors="replace") if run.metrics_path.is_file() else ""
    for line in text.split("\n")[:-1]:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and event.get("event") == "train":
            yield event


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float | int) and abs(value) < HUGE  # also refuses NaN


def _samples(run: Run) -> Iterator[Sample]:
    """What the model wrote, the newest first. A link out of the run is not followed: the run may be a stranger's."""
    home = run.directory.resolve()
    found = {path: path.name.removeprefix("samples-") for path in (run.directory / "samples").glob("samples-*")}
    steps = {path: int(number) for path, number in found.items() if number.isascii() and number.isdecimal()}
    for path in sorted(steps, key=lambda path: steps[path], reverse=True):
        try:
            if path.is_file() and path.resolve().is_relative_to(home):
                with path.open(encoding="utf-8", errors="replace") as file:
                    yield Sample(steps[path], file.read(LONGEST_SAMPLE))
        except OSError:  # gone since it was listed, or not ours to read
            continue


def _sendable_summary(summary: RunSummary) -> RunSummary:
    return replace(summary, name=_sendable(summary.name), notes=tuple(map(_sendable, summary.notes)))


def _sendable(text: str) -> str:
    """Names of files may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()
