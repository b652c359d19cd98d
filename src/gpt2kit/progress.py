"""How long work tells how far it is. Silent by default; `cli/terminal.py` draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One report: `done` of `total` units of `task`, with the figures worth showing beside it."""

    task: str
    done: int
    total: int | None
    unit: str
    values: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report to nobody."""
