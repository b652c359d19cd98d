"""What a contender of bench_native.py is: a program with one model in memory that answers lines, so that it can wait.

    decode PROMPT NEW           one greedy text that ignores its end: new tokens a second, prompt included; the ids
    batch ROWS PROMPT NEW       NEW steps of ROWS texts at once: tokens a second, prompts not included
    prefill COUNT PASSES        ids of a prompt a second, its last logits wanted
    about                       version, options, and the bytes of weights read for one token

One JSON object a line comes back. Whatever the libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

END = 50256  # GPT-2's end, above all ids of prompts


class Contender(Protocol):
    """A model that has been loaded. What it cannot do it may leave out."""

    def about(self) -> Mapping[str, Any]:
        """What it is; `bytes` where known."""

    def decode(self, prompt: Sequence[int], new: int) -> Sequence[int]:
        """The new ids of one greedy text."""

    def begin_batch(self, prompts: Sequence[Sequence[int]], new: int) -> None:
        """Read the prompts; not timed."""

    def continue_batch(self, new: int) -> Mapping[str, Any]:
        """One token more for every prompt, `new` times."""

    def prefill(self, prompt: Sequence[int]) -> None:
        """Think about the prompt, up to the logits of its last id."""


def prompts(rows: int, length: int) -> list[list[int]]:
    """Ids that look random and are the same for everyone."""
    return [[(row * 7919 + place * 104729 + 12345) * 48271 % END for place in range(length)] for row in range(rows)]


def answer_lines(contender: Contender) -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        verb, *numbers = line.split()
        print(json.dumps(_answer(contender, verb, *map(int, numbers))), file=ANSWERS, flush=True)


def _answer(contender: Contender, verb: str, *numbers: int) -> Mapping[str, Any]:
    if verb == "about":
        return contender.about()
    if verb == "decode":
        length, new = numbers
        (prompt,) = prompts(1, length)
        started = time.perf_counter()
        ids = list(contender.decode(prompt, new))
        seconds = time.perf_counter() - started
        assert len(ids) == new, f"{len(ids)} ids where {new} were asked for"
        return {"rate": new / seconds, "ids": ids}
    if verb == "batch":
        rows, length, new = numbers
        contender.begin_batch(prompts(rows, length), new)
        started = time.perf_counter()
        more = contender.continue_batch(new)
        return {"rate": rows * new / (time.perf_counter() - started), **more}
    assert verb == "prefill", f"no such verb: {verb}"
    length, passes = numbers
    (prompt,) = prompts(1, length)
    started = time.perf_counter()
    for _ in range(passes):
        contender.prefill(prompt)
    return {"rate": passes * length / (time.perf_counter() - started)}


# Libraries in C print to file 1, so the answers get a number of their own.
ANSWERS = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
