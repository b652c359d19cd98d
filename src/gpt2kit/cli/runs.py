"""gpt2 runs: how the runs stand, and some of them side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape
from tyro.conf import FlagCreatePairsOff, Positional, arg

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from gpt2kit.jobs.runs import Comparison, RunSummary

UNKNOWN = "-"
WIDEST_CHART = 100


@dataclass(frozen=True, kw_only=True)
class Runs:
    """List the runs in checkpoint/, the newest first."""

    json: FlagCreatePairsOff[bool] = False
    """Print a JSON list instead, for programs; null is unknown."""

    def __call__(self) -> int:
        """Print a line a run, then what is damaged."""
        from gpt2kit.jobs.runs import list_runs, other_programs_runs
        from gpt2kit.runs import RUNS

        summaries, others = list_runs(), other_programs_runs()
        if self.json:
            print(json.dumps([asdict(summary) for summary in summaries], indent=2))
        elif summaries:
            _show(_runs_table(summaries, time.time()))
            for summary in summaries:
                for note in summary.notes:
                    print(f"{summary.name}: {note}")
        elif not others:
            print(f"no runs in {RUNS}/; make one with: gpt2 finetune TEXT... (or see `gpt2 demo`)")
        if others and not self.json:
            print(f"of other programs, and read as models: {', '.join(others)}")
        return 0


@dataclass(frozen=True, kw_only=True)
class RunsCompare:
    """Draw runs in one picture, and tell how they differ."""

    runs: Annotated[tuple[str, ...], Positional, arg(metavar="RUN...", help_behavior_hint="")]
    """Two or more: names of runs in checkpoint/, or paths of run directories."""
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="FILE.png")] = None
    """The picture; compare-A-B.png if not given."""

    def __call__(self) -> int:
        """Draw the picture, and print the curves and a table."""
        from gpt2kit.cli.chart import chart
        from gpt2kit.jobs.runs import compare_runs

        comparison = compare_runs(self.runs, self.output)
        _show(chart(comparison.curves, min(get_terminal_size().columns, WIDEST_CHART)))
        _show(_comparison_table(comparison))
        for note in comparison.notes:
            print(note)
        print(f"picture: {comparison.picture}")
        return 0


def _runs_table(summaries: Sequence[RunSummary], now: float) -> Table:
    table = _table("run", "step", "loss", "held out", "best at", "size", "saved", "")
    for run in summaries:
        of = f" of {run.steps:,}" if run.steps else ""
        saved = "never" if run.saved is None else _age(now - run.saved)
        table.add_row(
            escape(run.name),
            UNKNOWN if run.step is None else f"{run.step:,}{of}",
            _loss(run.loss),
            _loss(run.validation_loss),
            UNKNOWN if run.best_step is None else f"{run.best_step:,}",
            _size(run.size_bytes),
            saved,
            "training" if run.training else "",
        )
    return table


def _comparison_table(comparison: Comparison) -> Table:
    """A row a figure or setting, a column a run: settings are many, runs few."""
    curves = comparison.curves.values()
    lowest = [curve.held_out.lowest() for curve in curves]
    table = _table("", *map(escape, comparison.curves))
    table.add_row("step", *(f"{curve.last_step():,}" for curve in curves))
    table.add_row("lowest held-out loss", *(UNKNOWN if low is None else _loss(low[1]) for low in lowest))
    table.add_row("at step", *(UNKNOWN if low is None else f"{low[0]:,}" for low in lowest))
    for name, values in comparison.settings.items():
        table.add_row(name, *(UNKNOWN if value is None else escape(_setting(value)) for value in values))
    return table


def _table(*headings: str) -> Table:
    """Columns of figures behind a column of names; no lines, so that plain text stays plain."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    return table


def _show(what: RenderableType) -> None:
    """Print what rich draws; print itself meets a reader that has gone, as everywhere else."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 200
    with console.capture() as captured:
        console.print(what)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _loss(loss: float | None) -> str:
    return UNKNOWN if loss is None else f"{loss:.3f}"


def _setting(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _size(size_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} B"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (seconds >= length and unit != "days"):
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"
