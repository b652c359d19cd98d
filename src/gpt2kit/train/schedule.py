"""The learning rate of every step."""

from __future__ import annotations

import math

from gpt2kit.config.training import TrainingConfig

FLOOR = 0.1  # share of the peak that a cosine ends at


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of step `step` (counted from 0): up in a line, then constant or down a half cosine."""
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - warmup) / max(config.steps - warmup, 1)
    return config.learning_rate * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))
