"""Draws Reports on standard error: a live line on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gpt2kit.progress import Progress, Report

PLAIN_SECONDS = 5.0  # between two plain lines
PASSING = {"validate"}  # a part of another task: it leaves no line of its own
SHOWN = {
    "loss": "loss {:.3f}",
    "validation_loss": "validation loss {:.3f}",
    "perplexity": "perplexity {:.2f}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "tokens": "{:,} tokens",
    "megabytes_per_second": "{:.1f} MB/s",
}


@contextmanager
def drawing() -> Iterator[Report]:
    """A Report that draws, as long as the block lasts."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Plain().report
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield _Lively(live).report


def tell(line: str) -> None:
    """Print a line on standard error. Where nobody reads any more (tee dies of Ctrl-C, too), the work goes on."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def tell_saving() -> None:
    """Say that Ctrl-C was heard."""
    tell("\nsaving; Ctrl-C again ends at once")


class _Clock:
    """Knows when each task was first heard of, and so how long it will take."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[float, int]] = {}

    def line(self, progress: Progress) -> str:
        now = time.monotonic()
        # From the first that is done on: what comes before it is often slow, and once only.
        began, from_done = self.first.setdefault(progress.task, (now, progress.done)) if progress.done else (now, 0)
        parts = [f"{progress.task} {_amount(progress)}"]
        parts += [SHOWN[name].format(value) for name, value in progress.values.items() if name in SHOWN]
        gained = progress.done - from_done
        if progress.total and gained and progress.done < progress.total and progress.unit != "second":
            parts.append(f"ETA {_clock_face((now - began) / gained * (progress.total - progress.done))}")
        return "  ".join(parts)


class _Plain:
    def __init__(self) -> None:
        self.clock, self.spoke = _Clock(), 0.0

    def report(self, progress: Progress) -> None:
        line, now = self.clock.line(progress), time.monotonic()
        if now - self.spoke >= PLAIN_SECONDS or _stays(progress):
            self.spoke = now
            tell(line)


class _Lively:
    def __init__(self, live: Live) -> None:
        self.clock, self.live = _Clock(), live
        self.before: Progress | None = None

    def report(self, progress: Progress) -> None:
        before, self.before = self.before, progress
        if before and before.task != progress.task and (before.total is None or _stays(before)):
            self.live.console.print(self.live.renderable)
        self.live.update(Text(self.clock.line(progress), no_wrap=True, overflow="ellipsis"))


def _stays(progress: Progress) -> bool:
    """Whether it is the last line of a task, which is worth keeping."""
    return progress.done == progress.total and progress.task not in PASSING


def _amount(progress: Progress) -> str:
    numbers = [progress.done] if progress.total is None else [progress.done, progress.total]
    if progress.unit == "byte":
        size, unit = (1e6, "MB") if max(numbers) >= 1e6 else (1e3, "kB")
        return "/".join(f"{number / size:,.1f}" for number in numbers) + f" {unit}"
    return "/".join(f"{number:,}" for number in numbers) + f" {progress.unit}s"


def _clock_face(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
