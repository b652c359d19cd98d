"""How the learning rates of a run rise and fall."""

from __future__ import annotations

import math

from gpt2kit.config.training import Recipe


def share_of_peak(recipe: Recipe, step: int) -> float:
    """The learning rate of step `step` (counted from 0) by its peak: up in a line, then constant or half a cosine."""
    warmup = min(recipe.warmup_steps, recipe.steps)
    if step < warmup:
        return (step + 1) / warmup
    if recipe.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(recipe.steps - warmup, 1)
    return recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
