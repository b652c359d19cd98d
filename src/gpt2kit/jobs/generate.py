"""Write texts with a model: load it, write, free it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import EngineOptions
from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.generate.generator import Generator, in_turn
from gpt2kit.generate.texts import Piece
from gpt2kit.jobs.load import load

LARGEST_BATCH = 4096  # more gain nothing, and take memory and time for each before the first word


def require_batch_size(batch_size: int) -> None:
    """Raise ConfigError unless so many texts can be written at once."""
    require(1 <= batch_size <= LARGEST_BATCH, f"batch_size must be 1 to {LARGEST_BATCH:,}, got {batch_size:,}")


def generate(
    model: str | Path | Checkpoint,
    prompt: str | None,
    *,
    samples: int | None = 1,
    sampling: SamplingConfig | None = None,
    stop: StopConfig | None = None,
    batch_size: int = 8,
    **engine: Unpack[EngineOptions],
) -> Iterator[Piece]:
    """Load the model; write continuations of `prompt`, one after the other, piece by piece as they come.

    Args:
        samples: how many; None is without end.
        batch_size: how many are written at once; changes the speed only.
        The others are those of `load` and of `Generator.generate`.
    """
    require(samples is None or samples >= 1, f"samples must be 1 or more, got {samples}")
    require_batch_size(batch_size)
    slots = batch_size if samples is None else min(samples, batch_size)
    generator = load(model, slots=slots, **engine)
    return _closing(generator, generator.pieces(prompt, samples=samples, sampling=sampling, stop=stop))


def _closing(generator: Generator, pieces: Iterator[Piece]) -> Iterator[Piece]:
    with generator:
        yield from in_turn(pieces)
