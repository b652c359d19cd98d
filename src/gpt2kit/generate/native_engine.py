"""The native engine: C++ on the CPU, one call from ids to logits. Its source is in native/."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt2kit import _native
from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import Precision
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError, OutOfMemory
from gpt2kit.generate.cache_memory import free_for_cache, ids_that_fit
from gpt2kit.generate.engine import Row
from gpt2kit.generate.packed import format_of, packed_weights

TOO_LARGE = "not enough memory; take a smaller model, --precision int8, or fewer samples at once (batch_size)"
WORTH_SHARING = 1_000_000  # parameters; with fewer, threads wait for each other longer than they work
CPUS = Path("/sys/devices/system/cpu")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


class NativeEngine:
    """All rows of a step think in one pass through the packed weights; a row gives the same bits in any batch."""

    exact_in_batches = True
    name = "native"

    def __init__(
        self,
        checkpoint: Checkpoint,
        slots: int = 8,
        precision: Precision = "auto",
        threads: int | None = None,
        *,
        bf16_cache: bool = False,
        memory_bytes: int | None = None,
    ) -> None:
        """With `bf16_cache`, what is remembered of texts takes half the memory, in bfloat16.

        `memory_bytes` is what the cache may take: by default, half of what is free after packing the weights. It is
        taken as texts grow.

        Raises ConfigError for a model of another architecture, and for an instruction set in GPT2KIT_ISA that is not
        here.
        """
        config = checkpoint.config
        if config.architecture != "gpt2":
            raise ConfigError(f"the native engine runs GPT-2 only, not {config.architecture}; use engine torch")
        self.config: ModelConfig = config
        self.slots = slots
        self.precision = own_precision(checkpoint) if precision == "auto" else precision
        self.threads = threads or (usable_cores() if checkpoint.parameter_count() >= WORTH_SHARING else 1)
        shape = _native.Shape(
            vocabulary=config.vocab_size,
            window=config.window,
            width=config.width,
            heads=config.heads,
            inner_width=config.inner_width,
            activation=getattr(_native.Activation, config.activation),
            epsilon=config.norm_epsilon,
            attention_scales=[config.attention_scale(layer) for layer in range(config.layers)],
        )
        try:
            weights = packed_weights(checkpoint, self.precision, self.threads)
            self.weight_bytes = sum(array.nbytes for name, array in weights.items() if _is_read_whole(name, config))
            matrices = [name for name, array in weights.items() if array.dtype == np.uint8]
            formats = {name: format_of(name, self.precision) for name in matrices}
            self._model = _native.Model(shape, formats, weights, slots, bf16_cache, self.threads)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        except MemoryError:
            raise OutOfMemory(TOO_LARGE) from None
        memory_bytes = free_for_cache() if memory_bytes is None else memory_bytes
        self.capacity = ids_that_fit(memory_bytes, self._model.bytes_per_id, config.window, slots)

    @property
    def instruction_set(self) -> str:
        """What its kernels were compiled for: the fastest here, or what GPT2KIT_ISA names."""
        return self._model.isa

    def step(self, rows: Sequence[Row]) -> np.ndarray:
        """See Engine.step."""
        counts = {"none": 0, "last": 1}
        try:
            return self._model.step(
                [(row.slot, np.asarray(row.ids, np.int32), counts.get(row.logits, len(row.ids))) for row in rows]
            )
        except MemoryError:
            raise OutOfMemory(TOO_LARGE) from None

    def truncate(self, slot: int, length: int) -> None:
        """See Engine.truncate."""
        self._model.truncate(slot, length)

    def share(self, source: int, target: int, length: int) -> None:
        """See Engine.share."""
        self._model.share(source, target, length)

    def close(self) -> None:
        """See Engine.close."""
        del self._model


class ReadSpeed:
    """Measures how fast threads read memory: the limit of an engine that reads all weights for every token."""

    def __init__(self, size_bytes: int) -> None:
        self._memory = _native.huge_pages(size_bytes)
        self._memory[:] = 1  # else all of it would be one page of zeros

    def __call__(self, threads: int) -> float:
        """Bytes a second, once through."""
        return _native.read_speed(self._memory, threads)


def native_instruction_sets() -> tuple[str, list[str]]:
    """The one that is used, and all that can be. Raises ConfigError where GPT2KIT_ISA names another."""
    try:
        return _native.isa(), _native.isas()
    except ValueError as error:
        raise ConfigError(str(error)) from None


def usable_cores() -> int:
    """The processor's cores that this process may use; threads that share one gain nothing."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = len({_siblings(cpu) for cpu in allowed})
    quota, _, period = QUOTA.read_text("ascii").partition(" ") if QUOTA.is_file() else ("max", "", "")
    return min(cores, max(1, math.ceil(int(quota) / int(period)))) if quota != "max" else cores


def own_precision(checkpoint: Checkpoint) -> Precision:
    """What auto means for this model."""
    return "bf16" if checkpoint.tensors["wte.weight"].dtype == "bfloat16" else "fp32"


def _siblings(cpu: int) -> str:
    """Names the core that this logical processor belongs to."""
    file = CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    return file.read_text("ascii").strip() if file.is_file() else str(cpu)


def _is_read_whole(name: str, config: ModelConfig) -> bool:
    """For every token; of embeddings that are no head, a row is read."""
    return name != "wpe.weight" and (config.tied_head or name != "wte.weight")
