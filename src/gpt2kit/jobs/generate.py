"""Write texts with a model: load it, write, free it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.generate.generator import Piece, in_turn
from gpt2kit.generate.select import DeviceName, EngineName
from gpt2kit.jobs.load import load


def generate(
    model: str | Path,
    prompt: str | None,
    *,
    samples: int = 1,
    sampling: SamplingConfig | None = None,
    stop: StopConfig | None = None,
    batch_size: int = 8,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
) -> Iterator[Piece]:
    """Write `samples` continuations of `prompt`, one after the other, piece by piece as they come.

    Args:
        batch_size: how many are written at once; changes the speed only.
        The others are those of `load` and of `Generator.generate`.
    """
    require(samples >= 1, f"nsamples must be 1 or more, got {samples}")
    require(batch_size >= 1, f"batch_size must be 1 or more, got {batch_size}")
    with load(model, engine=engine, device=device, slots=max(1, min(samples, batch_size))) as generator:
        yield from in_turn(generator.pieces(prompt, samples=samples, sampling=sampling, stop=stop))
