"""Curves in a terminal: braille dots for what is learnt, a letter a run for what is held out."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import numpy as np
from rich.text import Text

from gpt2kit.train.curve import Curve, Points, loss_limits

LETTERS = string.ascii_uppercase
COLORS = ("bright_blue", "bright_red", "bright_green", "bright_magenta", "bright_cyan", "bright_yellow")
HEIGHT, NARROWEST = 16, 30  # characters
# A braille character is 2 dots wide and 4 high; these are the bits of U+2800 and up, row by row.
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def chart(curves: Mapping[str, Curve], width: int) -> Text:
    """The curves, `width` characters wide, and below them whose letter is which."""
    columns = max(width, NARROWEST) - 9
    thin = [curve.thinned(columns // 2) for curve in curves.values()]
    last, (low, high) = max(curve.last_step() for curve in thin) or 1, loss_limits(thin)
    characters, styles = _drawn([_scaled(curve, last, low, high) for curve in thin], columns)
    text = Text(no_wrap=True)
    for row, losses in enumerate(np.linspace(high, low, HEIGHT)):
        text.append(f"{losses:7.2f} ┤" if row % 5 == 0 else f"{'':8}│")
        for character, style in zip(characters[row], styles[row], strict=True):
            text.append(str(character), str(style))
        text.append("\n")
    text.append(f"{'':8}└{'─' * columns}\n{'0':>10}{f'step {last:,}':>{columns - 1}}\n")
    for number, name in enumerate(curves):
        text.append(f"{'':9}{LETTERS[number % len(LETTERS)]} {name}\n", COLORS[number % len(COLORS)])
    text.append(f"{'':9}lines: learnt; letters: held out\n")
    return text


def _scaled(curve: Curve, last: int, low: float, high: float) -> Curve:
    """The curve in shares of the chart: steps from 0 at the left to 1, losses from 0 at the top to 1."""
    parts = (curve.learnt, curve.held_out)
    learnt, held_out = (Points(points.steps / last, (high - points.losses) / (high - low)) for points in parts)
    return Curve(learnt, held_out, curve.unreadable)


def _drawn(curves: Sequence[Curve], columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The characters of the chart and their styles, a row an array; scaled curves go in."""
    dots, characters = np.zeros((HEIGHT, columns), int), np.full((HEIGHT, columns), " ")
    styles = np.full((HEIGHT, columns), "", "U32")

    def places(points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of dots; what is beyond the limits is left out."""
        shown = (points.losses >= 0) & (points.steps >= 0)
        down, right = points.losses[shown] * (4 * HEIGHT - 1), points.steps[shown] * (2 * columns - 1)
        return down.round().astype(int), right.round().astype(int)

    for number, curve in enumerate(curves):
        down, right = places(_joined(curve.learnt, 40 * columns))
        np.bitwise_or.at(dots, (down // 4, right // 2), DOTS[down % 4, right % 2])
        styles[down // 4, right // 2] = COLORS[number % len(COLORS)]
    characters[dots > 0] = [chr(0x2800 + bits) for bits in dots[dots > 0]]
    for number, curve in enumerate(curves):
        marked = curve.held_out if len(curve.held_out) else Points(curve.learnt.steps[-1:], curve.learnt.losses[-1:])
        down, right = places(marked.thinned(columns // 6))
        characters[down // 4, right // 2] = LETTERS[number % len(LETTERS)]
        styles[down // 4, right // 2] = f"bold {COLORS[number % len(COLORS)]}"
    return characters, styles


def _joined(points: Points, count: int) -> Points:
    """`count` points along the lines from each point to the next."""
    if len(points) < 2:
        return points
    at, places = np.linspace(0, len(points) - 1, count), np.arange(len(points))
    return Points(np.interp(at, places, points.steps), np.interp(at, places, points.losses))
