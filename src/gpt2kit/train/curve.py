"""Runs as curves: loss over steps, measured on what is learnt and on what is held out; and the picture of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np

from gpt2kit.atomic import replacing
from gpt2kit.runs import Run

CURVE = "loss.png"
# Okabe and Ito's, without black and yellow: told apart by the colour-blind, and by their greys in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "os^Dv*P"
CHINESE_FONTS = ("Noto Sans CJK SC", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei", "SimHei")
MOST_POINTS = 200  # of a learnt curve in a picture 960 pixels wide
MOST_MARKERS = 25
FIRST_STEPS = 0.1  # the share of a curve that may leave the picture at the top


@dataclass(frozen=True)
class Points:
    """Finite losses in nats a token and the steps they were measured at, oldest first."""

    steps: np.ndarray
    losses: np.ndarray

    def __len__(self) -> int:
        return self.steps.size

    def thinned(self, most: int) -> Points:
        """At most `most` points, each the mean of its neighbourhood."""
        if len(self) <= most:
            return self
        starts = np.linspace(0, len(self), most, endpoint=False).astype(int)
        counts = np.diff(starts, append=len(self))
        return Points(*(np.add.reduceat(values, starts) / counts for values in (self.steps, self.losses)))

    def lowest(self) -> tuple[int, float] | None:
        """The step with the lowest loss, and that loss."""
        if not len(self):
            return None
        place = self.losses.argmin()
        return int(self.steps[place]), float(self.losses[place])


@dataclass(frozen=True)
class Curve:
    """What metrics.jsonl tells about one run's loss."""

    learnt: Points
    held_out: Points
    unreadable: int
    """Lines that are no events, or hold no finite loss where they should; they are left out."""

    def thinned(self, most: int) -> Curve:
        """The same with at most `most` learnt points, each the mean of its neighbourhood."""
        return replace(self, learnt=self.learnt.thinned(most))

    def last_step(self) -> int:
        """The newest step that was measured; 0 if none was."""
        return max((int(points.steps[-1]) for points in (self.learnt, self.held_out) if len(points)), default=0)


EMPTY = Curve(Points(np.empty(0), np.empty(0)), Points(np.empty(0), np.empty(0)), 0)


def read_curve(run: Run) -> Curve:
    """The curve of a run, as far as it can be read; a torn last line is ignored."""
    found: dict[str, list[tuple[float, float]]] = {"train": [], "validation": []}
    unreadable = 0
    text = run.metrics_path.read_text(encoding="utf-8", errors="replace") if run.metrics_path.exists() else ""
    for line in text.split("\n")[:-1]:
        try:
            event = json.loads(line)
            if (kind := event["event"]) in found:
                found[kind].append((float(event["step"]), float(event["loss"])))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            unreadable += 1
    learnt, held_out = (_finite(pairs) for pairs in found.values())
    unreadable += sum(map(len, found.values())) - len(learnt) - len(held_out)
    return Curve(learnt, held_out, unreadable)


def draw_curve(run: Run) -> None:
    """Draw metrics.jsonl to loss.png in the run's directory."""
    draw_curves({run.name: read_curve(run)}, run.directory / CURVE)


def draw_curves(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw curves, by the names they go under, into one PNG: a colour and a marker each."""
    from matplotlib import font_manager, rc_context  # slow to load, and wanted once
    from matplotlib.figure import Figure

    curves = {name: curve.thinned(MOST_POINTS) for name, curve in curves.items()}
    installed = {font.name for font in font_manager.fontManager.ttflist}
    with rc_context({"font.family": ["DejaVu Sans", *(font for font in CHINESE_FONTS if font in installed)]}):
        figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        for (name, curve), color, marker in zip(curves.items(), cycle(COLORS), cycle(MARKERS), strict=False):
            whose = f": {name}" if len(curves) > 1 else " text"
            learnt, held_out = curve.learnt, curve.held_out
            if len(learnt):
                axes.plot(learnt.steps, learnt.losses, color=color, alpha=0.4, linewidth=1.2, label=f"learnt{whose}")
            if len(held_out):
                (line,) = axes.plot(held_out.steps, held_out.losses, color=color, linewidth=1, label=f"held-out{whose}")
                line.set(marker=marker, markersize=5, markevery=-(-len(held_out) // MOST_MARKERS))
        title = next(iter(curves)) if len(curves) == 1 else ""
        axes.set(title=title, xlabel="step", ylabel="loss, nats a token", ylim=loss_limits(curves.values()))
        axes.locator_params(axis="x", integer=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        for text in (axes.title, *(axes.legend_.get_texts() if axes.legend_ else ())):
            text.set_parse_math(False)  # a dollar in a name is a dollar
        with replacing(path) as file:
            figure.savefig(file, format="png")


def loss_limits(curves: Iterable[Curve]) -> tuple[float, float]:
    """The losses to show: first steps and lone spikes may leave at the top, lest they squash all the rest."""
    parts = [points for curve in curves for points in (curve.learnt, curve.held_out) if len(points)]
    if not parts:
        return 0.0, 1.0
    low = min(float(points.losses.min()) for points in parts)
    later = [points.losses[points.steps >= points.steps[-1] * FIRST_STEPS] for points in parts]
    high = max(float(np.quantile(losses, 0.98)) for losses in later)
    margin = (high - low) / 20 or 0.5
    return low - margin, high + margin


def _finite(pairs: list[tuple[float, float]]) -> Points:
    steps, losses = np.array(pairs).reshape(-1, 2).T
    finite = np.isfinite(steps) & np.isfinite(losses)
    return Points(steps[finite], losses[finite])
