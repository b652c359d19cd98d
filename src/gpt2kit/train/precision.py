"""What the products of training are computed in; weights, gradients and moments stay float32."""

from __future__ import annotations

import time

import torch

from gpt2kit.config.training import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WORTHWHILE = 1.3  # times the speed of fp32, for all that bf16 does beside products
TRIES = 8


def fastest_precision(device: torch.device) -> tuple[Precision, str]:
    """The precision that `device` is fast at, and why."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU computes bf16 fast"
        return "fp16", "this GPU has no fast bf16"
    if device.type == "cpu":
        # What the CPU says it can do does not tell: some do bf16 ten times as fast as fp32, some at half the speed.
        gain = _seconds(torch.float32) / _seconds(torch.bfloat16)
        return "bf16" if gain > WORTHWHILE else "fp32", f"its products are {gain:.1f} times as fast in bf16 here"
    return "fp32", f"safe on {device.type}"


def _seconds(dtype: torch.dtype) -> float:
    """What a product as in a layer takes on the CPU, undisturbed."""
    x, weight = torch.ones(512, 768, dtype=dtype), torch.ones(768, 3072, dtype=dtype)
    times = []
    for _ in range(TRIES):
        started = time.perf_counter()
        x @ weight
        times.append(time.perf_counter() - started)
    return min(times)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which matrices are multiplied in `precision`. Rounded weights are not kept: each is used once."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32", cache_enabled=False)
