"""Load a model to write with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Unpack

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import EngineConfig, EngineOptions
from gpt2kit.generate.generator import Generator
from gpt2kit.generate.packed import packed_tokenizer
from gpt2kit.generate.select import open_engine
from gpt2kit.resolve import open_checkpoint


def load(model: str | Path | Checkpoint = "124M", *, slots: int = 4, **engine: Unpack[EngineOptions]) -> Generator:
    """Load a model to write with: `.generate`, `.stream`, `.score`.

    Args:
        model: a directory, a file, a run ("run1", "run1@2000", "run1@best"), a known name ("124M"), or a checkpoint
            that is open already.
        slots: how many sequences are thought about at once; more are done in turn. From 8 on, the torch engine on a CPU
            arranges its weights for batches, which costs speed with two or three.
        engine: engine ("auto", "native", "torch", "reference"), device, precision, kv_cache and threads, as
            `EngineConfig` has them.

    Raises:
        ModelNotFound: nothing answers to `model`.
        FormatError, WeightMismatch: what answers is damaged or incomplete.
    """
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    return Generator(checkpoint, packed_tokenizer(checkpoint), open_engine(checkpoint, EngineConfig(**engine), slots))


def available_gpus() -> list[str]:
    """torch's names of the GPUs here, such as "cuda:0"; none without torch."""
    if not find_spec("torch"):
        return []
    import torch

    kinds = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    return [f"{kind}:{number}" for kind, count in kinds.items() for number in range(count)]


def use_threads(count: int) -> None:
    """Let torch compute on so many threads, in this process, from now on."""
    if find_spec("torch"):
        import torch

        torch.set_num_threads(count)
