"""gpt2 interactive: write a text in turns with a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, UseAppendAction, arg

from gpt2kit.config.engine import EngineConfig
from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig

REMEMBERED_LINES = 1000


@dataclass(frozen=True, kw_only=True)
class Interactive:
    """Write a text in turns with a model.

    What you type is added to one growing text, and the model goes on. /help there tells how to change settings, try
    again, take back and save.
    """

    model: Annotated[str, arg(aliases=("--model-name",))] = "124M"
    """A known name (124M), a directory, a file, or a run (run1, run1@2000, run1@best)."""
    sampling: OmitArgPrefixes[UseAppendAction[SamplingConfig]] = SamplingConfig()
    stop: OmitArgPrefixes[UseAppendAction[StopConfig]] = StopConfig()
    length: int | None = None
    """The same as max_new_tokens, and wins over it."""
    engine: OmitArgPrefixes[EngineConfig] = EngineConfig()
    config: Path | None = None
    """A TOML file with any of these options; options on the command line win."""
    classic: FlagCreatePairsOff[bool] = False
    """As OpenAI's interactive_conditional_samples.py: every prompt for itself, no end but the length (none: half the
    window; max_new_tokens does not count), chain openai in place of standard."""
    nsamples: int = 1
    """Only with classic: texts a prompt."""
    batch_size: int = 1
    """Only with classic: texts written at once, a divisor of nsamples; changes the speed only."""

    def __call__(self) -> int:
        """Talk until the input ends."""
        # Engines load here, not for --help.
        from gpt2kit.cli.repl import Repl
        from gpt2kit.jobs.load import load
        from gpt2kit.jobs.standard_input import expect_utf8, typed_line
        from gpt2kit.jobs.writing import Writing
        from gpt2kit.legacy.classic import converse

        self._check()
        expect_utf8()
        with load(self.model, **self.engine.options(), slots=self.batch_size) as generator:
            if self.classic:
                converse(generator, typed_line, self.sampling, self.stop, nsamples=self.nsamples, length=self.length)
                return 0
            stop = self.stop if self.length is None else replace(self.stop, max_new_tokens=self.length)
            writing, terminal = Writing(generator, self.sampling, stop), sys.stdin.isatty()
            with _history() if terminal else nullcontext():
                Repl(writing, typed_line, sys.stdout, sys.stderr, terminal=terminal).run()
        return 0

    def _check(self) -> None:
        from gpt2kit.legacy.classic import require_batches

        require(self.length is None or self.length >= 1, f"length must be 1 or more, got {self.length}")
        many = (self.nsamples, self.batch_size)
        require(self.classic or many == (1, 1), "nsamples and batch_size are for --classic; /retry gives other answers")
        require_batches(*many)


@contextmanager
def _history() -> Iterator[None]:
    """The arrow keys bring back earlier lines, those of earlier starts included, where the system can do it."""
    try:
        import readline
    except ImportError:  # Windows, whose console has this itself
        yield
        return
    with suppress(OSError):
        readline.read_history_file(_history_file())
    try:
        yield
    finally:
        readline.set_history_length(REMEMBERED_LINES)
        with suppress(OSError):  # a home that cannot be written to is no reason to complain
            _history_file().parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(_history_file())


def _history_file() -> Path:
    """Source: the XDG Base Directory Specification, which ignores relative paths."""
    state = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME", "")
    place = Path(state) if os.path.isabs(state) else Path(os.path.expanduser("~/.local/state"))
    return place / "gpt2kit" / "history"
