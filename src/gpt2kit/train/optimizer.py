"""AdamW, with decay on matrices only; Muon for the layers' matrices and AdamW for the rest; or plain SGD.

Sources: Loshchilov and Hutter 2019 (AdamW); Brown et al. 2020, appendix B (which weights decay); Jordan et al. 2024,
kellerjordan.github.io/posts/muon (Muon).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Muon

from gpt2kit.config.training import Recipe
from gpt2kit.model.gpt2 import GPT2


class Optimizer:
    """A network's parameters that learn, and how they change. With `step_in_backward` they change as gradients come."""

    def __init__(self, network: GPT2, recipe: Recipe) -> None:
        named = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
        self._remembered: tuple[str, ...] = () if recipe.optimizer == "sgd" else ("exp_avg", "exp_avg_sq")
        self._muon = {weight for name, weight in named if recipe.optimizer == "muon" and _is_inner(name, weight)}
        rest = [weight for _, weight in named if weight not in self._muon]
        groups = [[weight for weight in rest if weight.ndim == 2], [weight for weight in rest if weight.ndim != 2]]
        if recipe.step_in_backward:
            groups = [[weight] for weight in rest]
        self.parts: list[torch.optim.Optimizer] = [_optimizer(weights, recipe) for weights in groups if weights]
        if muon := [weight for _, weight in named if weight in self._muon]:
            self.parts.append(Muon(muon, lr=recipe.muon_learning_rate, weight_decay=recipe.weight_decay))
        self.peaks = [part.param_groups[0]["lr"] for part in self.parts]
        if recipe.step_in_backward:
            for part, (weight,) in zip(self.parts, groups, strict=True):
                if weight is not network.head_weight:  # whose gradient comes after all others
                    weight.register_post_accumulate_grad_hook(_stepping(part))

    def set_rate(self, share: float) -> None:
        """Learn at this share of the peak rates from now on."""
        for part, peak in zip(self.parts, self.peaks, strict=True):
            part.param_groups[0]["lr"] = peak * share

    def step_one(self, weight: Parameter) -> None:
        """Change a weight that has an optimizer of its own, and drop its gradient."""
        _stepping(next(part for part in self.parts if part.param_groups[0]["params"][0] is weight))(weight)

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def memory(self) -> Iterator[tuple[Parameter, dict[str, Any]]]:
        """Every parameter with what is remembered of it; writing into the dictionaries changes that."""
        for part in self.parts:
            for weight in part.param_groups[0]["params"]:
                yield weight, part.state[weight]

    def remembers(self, weight: Parameter) -> tuple[str, ...]:
        """The names, torch's, of the tensors that are remembered of a parameter."""
        return ("momentum_buffer",) if weight in self._muon else self._remembered


def _is_inner(name: str, weight: Tensor) -> bool:
    return weight.ndim == 2 and name.startswith("h.")


def _optimizer(weights: list[Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    decay = recipe.weight_decay if weights[0].ndim == 2 else 0.0
    if recipe.optimizer == "sgd":
        return SGD(weights, lr=recipe.learning_rate, weight_decay=decay)
    return AdamW(weights, lr=recipe.learning_rate, betas=(0.9, recipe.beta2), weight_decay=decay, fused=True)


def _stepping(part: torch.optim.Optimizer) -> Any:
    def step(weight: Tensor) -> None:
        part.step()
        weight.grad = None

    return step
