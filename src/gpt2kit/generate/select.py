"""Which engine, on which device: decided once, here."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Literal

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.errors import ConfigError, MissingExtra
from gpt2kit.generate.engine import Engine
from gpt2kit.generate.reference import ReferenceEngine

EngineName = Literal["auto", "torch", "reference"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]


def open_engine(checkpoint: Checkpoint, engine: EngineName, device: DeviceName, slots: int) -> Engine:
    """An engine with room for `slots` sequences. auto: torch where it is installed, else the slow reference."""
    chosen = preferred_engine() if engine == "auto" else engine
    if chosen == "reference":
        if device not in ("auto", "cpu"):
            raise ConfigError(f"the reference engine runs on the cpu only, not on {device}; use engine torch")
        if engine == "auto":
            warnings.warn(
                "torch is missing, so the slow reference engine serves; get it with: pip install 'gpt2kit[train]', "
                "or choose this one by name, --engine reference",
                stacklevel=2,
            )
        return ReferenceEngine(checkpoint, slots)
    if not find_spec("torch"):
        raise MissingExtra("the torch engine", "train")
    from gpt2kit.generate.torch_engine import TorchEngine, usable_device
    from gpt2kit.model.memory import naming_exhaustion

    with naming_exhaustion("take a smaller model, or fewer samples at once (batch_size)"):
        return TorchEngine(checkpoint, slots, usable_device(device))


def preferred_engine() -> Literal["torch", "reference"]:
    """What auto means on this machine."""
    return "torch" if find_spec("torch") else "reference"
