"""How fast the native engine writes on this machine, and how fast it could: memory is the limit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import EngineConfig, Precision
from gpt2kit.config.model import SIZES
from gpt2kit.errors import ConfigError
from gpt2kit.generate.engine import Engine, Row
from gpt2kit.generate.select import has_native, open_engine
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.resolve import open_checkpoint

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int4")
PROBE_BYTES = 1 << 29
PROMPT, NEW = 16, 64  # ids
ROUNDS = 3
VOCABULARY = 50257


@dataclass(frozen=True)
class Machine:
    """What the figures were measured on."""

    model: str
    threads: int
    instruction_set: str


@dataclass(frozen=True)
class Speed:
    """How fast one text grows."""

    precision: Precision
    weight_bytes: int
    """Read for every token."""
    tokens_per_second: float
    """The best of the rounds."""
    bytes_per_second: float
    """What memory gave at best, right before and after."""

    @property
    def share(self) -> float:
        """Of the tokens that memory allows."""
        return self.tokens_per_second * self.weight_bytes / self.bytes_per_second


def bench(model: str | Path | None = None, *, threads: int | None = None) -> Iterator[Machine | Speed]:
    """Measure greedy writing with every precision: first what it is measured on, then each as it is known.

    Args:
        model: as for `load`; None is a 124M of random weights, as fast as a real one.
        threads: None takes as many as the processor has cores.

    Raises:
        ConfigError: the native engine was not built here.
        What `load` raises for a model that is not there, or damaged.
    """
    if not has_native():
        raise ConfigError("only the native engine is measured, and it was not built here; `gpt2 doctor` says how")
    from gpt2kit.generate.native_engine import NativeEngine, ReadSpeed

    checkpoint = _random() if model is None else open_checkpoint(model)
    probe = ReadSpeed(PROBE_BYTES)
    for precision in PRECISIONS:
        config = EngineConfig(engine="native", precision=precision, threads=threads)
        engine = open_engine(checkpoint, config, 1)
        assert isinstance(engine, NativeEngine)
        if precision == PRECISIONS[0]:
            yield Machine(checkpoint.origin, engine.threads, engine.instruction_set)
        fastest, widest = 0.0, probe(engine.threads)
        for _ in range(ROUNDS):
            fastest = max(fastest, _write(engine))
            widest = max(widest, probe(engine.threads))
        yield Speed(precision, engine.weight_bytes, fastest, widest)
        engine.close()


def _random() -> Checkpoint:
    return initial_checkpoint(SIZES["124M"].config(VOCABULARY), {}, 0)


def _write(engine: Engine) -> float:
    """Tokens a second."""
    engine.truncate(0, 0)
    new = min(NEW, engine.config.window - PROMPT)
    logits_RV = engine.step([Row(0, [id % engine.config.vocab_size for id in range(PROMPT)])])
    begun = time.perf_counter()
    for _ in range(new):
        logits_RV = engine.step([Row(0, [int(logits_RV[0].argmax())])])
    return new / (time.perf_counter() - begun)
