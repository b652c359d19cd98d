"""Which engine, on which device: decided once, here."""

from __future__ import annotations

import ctypes
import sys
import warnings
from importlib.util import find_spec

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import EngineConfig, EngineName
from gpt2kit.errors import ConfigError, MissingExtra
from gpt2kit.generate.engine import Engine
from gpt2kit.generate.reference import ReferenceEngine

NVIDIA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def open_engine(checkpoint: Checkpoint, config: EngineConfig, slots: int) -> Engine:
    """An engine with room for `slots` sequences."""
    if has_native():
        from gpt2kit.generate.native_engine import native_instruction_sets

        native_instruction_sets()  # refuses another GPT2KIT_ISA: the choice of tokens heeds it with any engine
    chosen = _chosen(checkpoint, config)
    if chosen != "torch" and config.device not in ("auto", "cpu"):
        raise ConfigError(f"the {chosen} engine runs on the cpu only, not on {config.device}; use engine torch")
    if chosen != "native" and config.rounds:
        rounded = config.precision if config.kv_cache == "fp32" else f"a cache in {config.kv_cache}"
        raise ConfigError(f"the {chosen} engine computes in fp32; {rounded} is for the native engine")
    if chosen == "native":
        return _native(checkpoint, config, slots)
    if chosen == "torch":
        return _torch(checkpoint, config, slots)
    if config.engine == "auto":
        without, compiler = "does not run a GPT2-ML", ""
        if checkpoint.config.architecture == "gpt2":
            without, compiler = "was not built", "install a C++ compiler and gpt2kit again, or "
        warnings.warn(
            f"the native engine {without} and torch is missing, so the slow reference engine serves; {compiler}get "
            "torch with: pip install 'gpt2kit[train]', or choose this engine by name, --engine reference",
            stacklevel=2,
        )
    return ReferenceEngine(checkpoint, slots)


def preferred_engine(config: EngineConfig | None = None, checkpoint: Checkpoint | None = None) -> EngineName:
    """What auto means on this machine, for this model."""
    config = config or EngineConfig()
    gpu = config.device in ("cuda", "mps") or (config.device == "auto" and not config.rounds and _has_gpu_driver())
    if gpu and find_spec("torch"):
        return "torch"
    if has_native() and (checkpoint is None or checkpoint.config.architecture == "gpt2"):
        return "native"
    return "torch" if find_spec("torch") else "reference"


def weight_bytes(checkpoint: Checkpoint, config: EngineConfig) -> int:
    """What the weights will take in memory."""
    if _chosen(checkpoint, config) != "native" or not has_native():
        return 4 * checkpoint.parameter_count()
    from gpt2kit.generate.native_engine import own_precision
    from gpt2kit.generate.packed import packed_bytes

    return packed_bytes(checkpoint, own_precision(checkpoint) if config.precision == "auto" else config.precision)


def has_native() -> bool:
    """Whether the native engine was built when this package was installed."""
    return find_spec("gpt2kit._native") is not None


def _chosen(checkpoint: Checkpoint, config: EngineConfig) -> EngineName:
    return preferred_engine(config, checkpoint) if config.engine == "auto" else config.engine


def _native(checkpoint: Checkpoint, config: EngineConfig, slots: int) -> Engine:
    if not has_native():
        raise ConfigError(
            "the native engine was not built when gpt2kit was installed; install a C++ compiler (on Debian: apt-get "
            "install g++), then gpt2kit again, or use engine torch"
        )
    from gpt2kit.generate.native_engine import NativeEngine

    return NativeEngine(checkpoint, slots, config.precision, config.threads, bf16_cache=config.kv_cache == "bf16")


def _torch(checkpoint: Checkpoint, config: EngineConfig, slots: int) -> Engine:
    if not find_spec("torch"):
        raise MissingExtra("the torch engine", "train")
    from gpt2kit.generate.torch_engine import TorchEngine, usable_device
    from gpt2kit.model.memory import naming_exhaustion

    with naming_exhaustion("take a smaller model, or fewer samples at once (batch_size)"):
        return TorchEngine(checkpoint, slots, usable_device(config.device))


def _has_gpu_driver() -> bool:
    """Whether an NVIDIA driver is here, or a Mac's GPU: cheaper to ask than torch."""
    if sys.platform == "darwin":
        return False  # the native engine is the faster one for one text; --device mps asks for the GPU
    try:
        ctypes.CDLL(NVIDIA_DRIVER)
    except OSError:
        return False
    return True
