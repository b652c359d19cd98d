"""gpt2 evaluate: how well a model predicts a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional

from gpt2kit.config.engine import EngineConfig


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure how well a model predicts a text.

    Every token counts once, with the context that the window still holds. Perplexity compares models with the same
    vocabulary; bits per byte compares all.
    """

    model: Annotated[str, Positional]
    """A known name (124M), a directory, a file, or a run (run1, run1@2000, run1@best)."""
    file: Annotated[Path, Positional]
    """A UTF-8 text file."""
    engine: OmitArgPrefixes[EngineConfig] = EngineConfig()

    def __call__(self) -> int:
        """Print the figures."""
        from gpt2kit.cli.terminal import drawing
        from gpt2kit.jobs.evaluate import evaluate

        with drawing() as report:
            figures = evaluate(self.model, self.file, **self.engine.options(), report=report)
        print(f"tokens          {figures.tokens:,}")
        print(f"bytes           {figures.bytes:,}")
        print(f"loss            {figures.loss:.4f} nats a token")
        print(f"perplexity      {figures.perplexity:.3f} a token")
        print(f"bits per byte   {figures.bits_per_byte:.4f}")
        return 0
