"""AdamW, with decay on matrices only. Source: Loshchilov and Hutter 2019; Brown et al. 2020, appendix B."""

from __future__ import annotations

import torch

from gpt2kit.config.training import TrainingConfig
from gpt2kit.model.gpt2 import GPT2


def adamw(network: GPT2, config: TrainingConfig) -> torch.optim.AdamW:
    """An optimizer over all parameters of `network`, in two groups."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in network.parameters() if parameter.ndim != 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)
