"""Reports drawn as the old programs drew them: tqdm's bars on standard error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tqdm import tqdm

from gpt2kit.progress import Progress, Report

DOWNLOAD = re.compile(r"(?P<verify>verify )?[^/]+/(?P<file>[^/]+)")


@contextmanager
def bars() -> Iterator[Report]:
    """A Report that draws one bar a task, as long as the block lasts; training, which tells lines, has none."""
    drawing = _Bars()
    try:
        yield drawing.report
    finally:
        with suppress(OSError):
            drawing.close()


class _Bars:
    """The bar of the task that is under way: there is never more than one, so that lines can be printed between."""

    def __init__(self) -> None:
        self._task, self._done = "", 0
        self._bar: tqdm[None] | None = None

    def report(self, progress: Progress) -> None:
        with suppress(OSError):  # nobody looks any more, which is no reason to end the work
            self._draw(progress)

    def _draw(self, progress: Progress) -> None:
        if progress.task == "train":
            self.close()
            return
        again = progress.done < self._done
        if progress.task != self._task or again:
            self.close()
            self._task, self._done = progress.task, 0
            self._bar = _bar(progress)
        if self._bar is not None:
            self._bar.total = progress.total
            self._bar.update(progress.done - self._done)
        self._done = progress.done
        if progress.done == progress.total:
            self._finish()

    def close(self) -> None:
        """End the bar; the next report begins another."""
        self._finish()
        self._task, self._done = "", 0

    def _finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _bar(progress: Progress) -> tqdm[None]:
    in_bytes = progress.unit == "byte"
    return tqdm(
        total=progress.total,
        desc=_description(progress.task),
        ncols=100,
        unit="B" if in_bytes else "it",
        unit_scale=in_bytes,
    )


def _description(task: str) -> str:
    """`124M/encoder.json` is being fetched; what else goes on has its own word."""
    if found := DOWNLOAD.fullmatch(task):
        return f"{'Verifying' if found['verify'] else 'Fetching'} {found['file']}"
    return task[:1].upper() + task[1:]
