"""Ctrl-C while a model learns: the first asks, and what was learnt is saved; the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

from gpt2kit.progress import Progress, Report


class Interruptible:
    """While training is on, the first Ctrl-C only asks (the object, called, says True) and calls `say`.

    Before and after that there is nothing to save, and Ctrl-C ends at once, as everywhere. `report` must hear all that
    is reported: it tells when training is on. Outside of the main thread, where no Ctrl-C comes, it does nothing.
    """

    def __init__(self, report: Report, say: Callable[[], None]) -> None:
        self._report, self._say = report, say
        self._training = self._asked = False

    def __call__(self) -> bool:
        return self._asked

    def report(self, progress: Progress) -> None:
        """Pass on a report, and learn from it whether training is on."""
        if progress.task != "validate":  # which is part of training
            self._training = progress.task == "train" and progress.done != progress.total
        self._report(progress)

    def __enter__(self) -> Self:
        self._listens = threading.current_thread() is threading.main_thread()
        if self._listens:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._training:
            raise KeyboardInterrupt
        self._asked = True
        self._say()
