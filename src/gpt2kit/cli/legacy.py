"""gpt2 legacy: run the call line of an old program."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2kit.legacy.programs import PROGRAMS, named, near

USAGE_ERROR = 2


@dataclass(frozen=True)
class Legacy:
    """Run the call line of an old program."""

    words: Sequence[str]
    """The program's name, with its path or without, and what followed it."""

    def __call__(self) -> int:
        """Run it as it was, or list what there is."""
        if not self.words or self.words[0] in ("-h", "--help"):
            print(_overview())
            return 0 if self.words else USAGE_ERROR
        name, *rest = self.words
        if program := named(name):
            return program(rest)
        hint = f"did you mean: {near(name)}?" if near(name) else "`gpt2 legacy` lists them"
        print(f"gpt2: no old program {name!r}; {hint}", file=sys.stderr)
        return USAGE_ERROR


def _overview() -> str:
    width = max(map(len, PROGRAMS)) + 2
    return "\n".join(
        [
            "Lines that were written for old programs run as they are, with their flags, defaults and outputs.",
            "",
            "usage: gpt2 legacy PROGRAM [ARGUMENTS]     gpt2 legacy PROGRAM --help tells its flags",
            "",
            *(f"  {name:<{width}}{program.summary}" for name, program in PROGRAMS.items()),
        ]
    )
