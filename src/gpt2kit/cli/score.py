"""gpt2 score: how likely a model finds every token of a text, as a table, as JSON lines or as shades of the text."""

from __future__ import annotations

import codecs
import json
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from rich.color import ColorSystem
from rich.style import Style
from rich.text import Text
from tyro.conf import OmitArgPrefixes, Positional

from gpt2kit.config.engine import EngineConfig
from gpt2kit.config.limits import require

if TYPE_CHECKING:
    from gpt2kit.jobs.score import Candidate, ScoredToken, Summary
    from gpt2kit.progress import Report

TOKEN_CELLS, ALTERNATIVE_CELLS = 26, 16  # the widths in which a table shows a token
BITS = (1, 3, 6, 9, 12)  # where one shade ends and the next begins: one guess in 2, 8, 64, 512, 4096
SHADES = (  # of 256 colours, the brightest for what was expected; the letters always stand out
    "color(16) on color(255)",
    "color(16) on color(229)",
    "color(16) on color(222)",
    "color(16) on color(214)",
    "color(16) on color(203)",
    "color(231) on color(124)",
)
# What would move the cursor, or command the terminal, is shown as a sign; tabs and line breaks stay.
SIGNS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
SIGNS |= {code: 0xFFFD for code in range(0x80, 0xA0)}


@dataclass(frozen=True, kw_only=True)
class Score:
    """Show how likely a model finds every token of a text.

    The first token is judged as the beginning of a text, each later one by all before it that the window still holds.
    Log-probabilities are natural; rank 1 is the model's favourite.
    """

    file: Annotated[str, Positional]
    """A UTF-8 text file; "-" reads standard input."""
    model: str = "124M"
    """A known name (124M), a directory, a file, or a run (run1, run1@2000, run1@best)."""
    format: Literal["table", "jsonl", "text"] = "table"
    """table: a line a token; jsonl: the same for programs; text: the text itself, darker where it surprised."""
    top: int = 0
    """How many of the likeliest tokens to show beside each (table and jsonl)."""
    engine: OmitArgPrefixes[EngineConfig] = EngineConfig()

    def __call__(self) -> int:
        """Print the tokens as they are judged, then the figures of the whole; for jsonl these go to standard error."""
        from gpt2kit.data.documents import decode_text, read_text
        from gpt2kit.jobs.score import score

        require(not self.top or self.format != "text", "format text has no place for top; take table or jsonl")
        page = self._page()
        text = (
            decode_text(sys.stdin.buffer.read(), "standard input") if self.file == "-" else read_text(Path(self.file))
        )
        out = sys.stdout  # while a live line is drawn on standard error, sys.stdout leads there too
        with _progress_beside(out.isatty()) as report:
            head = page.head
            for chunk in score(self.model, text, top=self.top, **self.engine.options(), report=report):
                print(head + page.body(chunk.tokens), end="", file=out, flush=True)
                head = ""
        print(page.gap + _in_a_line(chunk.summary), file=sys.stderr if self.format == "jsonl" else out)
        return 0

    def _page(self) -> Page:
        if self.format == "jsonl":
            return JsonLines()
        if self.format == "table":
            return Table(self.top)
        if os.environ.get("NO_COLOR"):
            print(
                "gpt2: NO_COLOR is set, so no shades are to be seen; unset it, or take another format", file=sys.stderr
            )
            return ShadedText(None)
        return ShadedText(ColorSystem.EIGHT_BIT)


class Page(Protocol):
    """What is printed: the head, then the body in parts, then the gap before the figures of the whole."""

    head: str
    gap: str

    def body(self, tokens: Sequence[ScoredToken]) -> str:
        """These tokens, which follow those of the call before."""


class Table:
    """A line a token, in columns of fixed width."""

    gap = "\n"

    def __init__(self, top: int) -> None:
        heads = ("position", "id", "token", "probability", "logprob", "rank")
        self.head = self._line(*heads, [(f"top {place}", "") for place in range(1, top + 1)])

    def body(self, tokens: Sequence[ScoredToken]) -> str:
        return "".join(
            self._line(
                str(token.position),
                str(token.id),
                _visible(token),
                _probability(token),
                f"{token.logprob:z.3f}",
                str(token.rank),
                [(_visible(other), _probability(other)) for other in token.top],
            )
            for token in tokens
        )

    def _line(
        self, position: str, id: str, token: str, probability: str, logprob: str, rank: str, top: list[tuple[str, str]]
    ) -> str:
        line = (
            f"{position:>8}  {id:>6}  {_fitted(token, TOKEN_CELLS)}  {probability:>11}  {logprob:>8}  {rank:>6}"
            + "".join(f"  {_fitted(other, ALTERNATIVE_CELLS)} {likely:>7}" for other, likely in top)
        )
        return line.rstrip() + "\n"


class JsonLines:
    """A JSON object a line, in ASCII: no character of a token can be taken for the end of the line."""

    head = gap = ""

    def body(self, tokens: Sequence[ScoredToken]) -> str:
        return "".join(json.dumps(self._row(token)) + "\n" for token in tokens)

    def _row(self, token: ScoredToken) -> dict[str, Any]:
        row = {"position": token.position, **self._candidate(token), "rank": token.rank}
        return row | {"top": [self._candidate(other) for other in token.top]} if token.top else row

    def _candidate(self, candidate: Candidate) -> dict[str, Any]:
        """`token` is null where an id has no text; `bytes` are there where they are no whole characters."""
        text = candidate.content.decode("utf-8", errors="replace") or None
        cut = {} if text is None or text.encode() == candidate.content else {"bytes": list(candidate.content)}
        figures = {"probability": candidate.probability, "logprob": candidate.logprob}
        return {"id": candidate.id, "token": text, **cut, **figures}


class ShadedText:
    """The text itself, each character on the shade of its token, of several tokens the most surprising."""

    def __init__(self, colours: ColorSystem | None) -> None:
        self._colours = colours
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._held_bits = 0.0  # how surprising the beginning of a character was that is not yet whole
        self.gap = "\n"
        self.head = f"surprise in bits: {''.join(self._legend())}\n\n" if colours else ""

    def body(self, tokens: Sequence[ScoredToken]) -> str:
        shown = "".join(self._shaded(text, bits) for token in tokens for text, bits in self._whole_characters(token))
        self.gap = "\n" if shown.endswith("\n") else "\n\n"
        return shown

    def _whole_characters(self, token: ScoredToken) -> Iterator[tuple[str, float]]:
        text, bits = self._decoder.decode(token.content), token.bits
        of_held = 1 if self._held_bits > bits else 0
        yield text[:of_held], self._held_bits
        yield text[of_held:], bits
        begun, _ = self._decoder.getstate()
        self._held_bits = 0.0 if not begun else bits if text else max(bits, self._held_bits)

    def _shaded(self, text: str, bits: float) -> str:
        # Around a line break the colours end: a terminal would paint the rest of the line with them.
        style = Style.parse(SHADES[bisect_right(BITS, bits)])
        lines = text.translate(SIGNS).split("\n")
        return "\n".join(style.render(line, color_system=self._colours) for line in lines)

    def _legend(self) -> Iterator[str]:
        names = [f"under {BITS[0]}", *(f"{low} to {high}" for low, high in pairwise(BITS)), f"{BITS[-1]} and more"]
        for name, bits in zip(names, (0, *BITS), strict=True):
            yield self._shaded(f" {name} ", bits)


def _progress_beside(rows_are_seen: bool) -> AbstractContextManager[Report]:
    from gpt2kit.cli.terminal import drawing
    from gpt2kit.progress import silent

    return nullcontext(silent) if rows_are_seen else drawing()


def _visible(token: Candidate) -> str:
    """As Python writes it: ' the', '\\n'; b'\\xe7\\x8c' where it is no whole characters."""
    if not token.content:
        return f"no text (id {token.id})"
    try:
        return repr(token.content.decode())
    except UnicodeDecodeError:
        return repr(token.content)


def _fitted(text: str, cells: int) -> str:
    """Exactly so many cells wide; a wide character takes two. What does not fit ends in an ellipsis."""
    fitted = Text(text)
    fitted.truncate(cells, overflow="ellipsis", pad=True)
    return fitted.plain


def _probability(token: Candidate) -> str:
    return f"{token.probability:.4f}" if token.probability >= 0.0001 else f"{token.probability:.1e}"


def _in_a_line(summary: Summary) -> str:
    return (
        f"{summary.tokens:,} tokens  mean logprob {-summary.loss:z.3f}  perplexity {summary.perplexity:.2f}  "
        f"{summary.bits_per_byte:.3f} bits/byte  {summary.ranked_first / summary.tokens:.0%} rank 1"
    )
