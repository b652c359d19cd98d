"""GPT-2, whole: get the weights, encode text, fine-tune, sample, measure; one package, one command (`gpt2`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gpt2kit.checkpoint import Checkpoint
    from gpt2kit.config.model import ModelConfig
    from gpt2kit.config.sampling import SamplingConfig, StopConfig
    from gpt2kit.config.training import TrainingConfig
    from gpt2kit.errors import Gpt2kitError
    from gpt2kit.generate.generator import Generator
    from gpt2kit.generate.texts import Completion
    from gpt2kit.jobs.compare import Difference, compare
    from gpt2kit.jobs.convert import Conversion, convert
    from gpt2kit.jobs.download import download
    from gpt2kit.jobs.encode import encode
    from gpt2kit.jobs.evaluate import evaluate
    from gpt2kit.jobs.finetune import finetune
    from gpt2kit.jobs.load import load
    from gpt2kit.resolve import open_checkpoint
    from gpt2kit.tokenizer.protocol import Tokenizer

# Loaded when first used, so that `import gpt2kit` costs nothing.
_HOMES = {
    "Checkpoint": "gpt2kit.checkpoint",
    "Completion": "gpt2kit.generate.texts",
    "Conversion": "gpt2kit.jobs.convert",
    "Difference": "gpt2kit.jobs.compare",
    "Generator": "gpt2kit.generate.generator",
    "Gpt2kitError": "gpt2kit.errors",
    "ModelConfig": "gpt2kit.config.model",
    "SamplingConfig": "gpt2kit.config.sampling",
    "StopConfig": "gpt2kit.config.sampling",
    "Tokenizer": "gpt2kit.tokenizer.protocol",
    "TrainingConfig": "gpt2kit.config.training",
    "compare": "gpt2kit.jobs.compare",
    "convert": "gpt2kit.jobs.convert",
    "download": "gpt2kit.jobs.download",
    "encode": "gpt2kit.jobs.encode",
    "evaluate": "gpt2kit.jobs.evaluate",
    "finetune": "gpt2kit.jobs.finetune",
    "load": "gpt2kit.jobs.load",
    "open_checkpoint": "gpt2kit.resolve",
}

__all__ = [
    "Checkpoint",
    "Completion",
    "Conversion",
    "Difference",
    "Generator",
    "Gpt2kitError",
    "ModelConfig",
    "SamplingConfig",
    "StopConfig",
    "Tokenizer",
    "TrainingConfig",
    "compare",
    "convert",
    "download",
    "encode",
    "evaluate",
    "finetune",
    "load",
    "open_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gpt2kit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
