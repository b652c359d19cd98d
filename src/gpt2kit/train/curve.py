"""The picture of a run: loss over steps, measured on what is learnt and on what is held out."""

from __future__ import annotations

from typing import Any

from gpt2kit.atomic import replacing
from gpt2kit.runs import Run


def draw_curve(run: Run) -> None:
    """Draw metrics.jsonl to loss.png in the run's directory."""
    from matplotlib.figure import Figure  # slow to load, and wanted once

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    learnt, held_out = run.metrics("train"), run.metrics("validation")
    axes.plot(*_points(learnt), color="0.6", linewidth=1, label="learnt text")
    axes.plot(*_points(held_out), marker="o", markersize=3, label="held-out text")
    axes.set(title=run.name, xlabel="step", ylabel="loss, nats a token")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(run.directory / "loss.png") as file:
        figure.savefig(file, format="png")


def _points(entries: list[dict[str, Any]]) -> tuple[list[int], list[float]]:
    return [entry["step"] for entry in entries], [entry["loss"] for entry in entries]
