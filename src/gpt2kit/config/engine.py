"""What runs a model: which engine, where, how exactly, on how many threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from gpt2kit.config.limits import require, require_known

EngineName = Literal["auto", "native", "torch", "reference"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "int8", "int4"]
CachePrecision = Literal["fp32", "bf16"]

LARGEST_TEAM = 1024


class EngineOptions(TypedDict, total=False):
    """The same by keywords, as functions take them; defaults are those of EngineConfig."""

    engine: EngineName
    device: DeviceName
    precision: Precision
    kv_cache: CachePrecision
    threads: int | None


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a model is run. Neither engine nor threads change what is written but by rounding; the precisions may."""

    engine: EngineName = "auto"
    """auto: torch where there is an NVIDIA GPU, else native, the fastest on a CPU; where that was not built, torch, or
    else reference, which is slow."""
    device: DeviceName = "auto"
    """auto: a GPU where torch finds one."""
    precision: Precision = "auto"
    """Of the weights in the native engine: bf16 takes half the memory of fp32, int8 a quarter, int4 a sixth; less
    memory is faster and less exact. auto: bf16 where the model was saved in it, else fp32."""
    kv_cache: CachePrecision = "fp32"
    """What the native engine remembers of the texts: bf16 takes half the memory."""
    threads: int | None = None
    """Of the native engine; None takes as many as the processor has cores, and one for a tiny model."""

    def __post_init__(self) -> None:
        require_known(self)
        require(
            self.threads is None or 1 <= self.threads <= LARGEST_TEAM,
            f"threads must be 1 to {LARGEST_TEAM}, got {self.threads}",
        )

    @property
    def rounds(self) -> bool:
        """Whether it asks for what only the native engine has."""
        return self.precision not in ("auto", "fp32") or self.kv_cache != "fp32"

    def options(self) -> EngineOptions:
        """As keywords."""
        return {
            "engine": self.engine,
            "device": self.device,
            "precision": self.precision,
            "kv_cache": self.kv_cache,
            "threads": self.threads,
        }
