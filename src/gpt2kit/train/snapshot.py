"""Freeze and wake: network and optimizer to files of a step, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import WeightMismatch
from gpt2kit.formats.huggingface import WEIGHTS, stored_tensors
from gpt2kit.formats.safetensors_file import open_tensors, write_tensors
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.weights import canonical_tensors

OPTIMIZER = "optimizer.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names; the files hold "exp_avg.<parameter>"


def freeze(network: GPT2, optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Write model.safetensors and optimizer.safetensors into `directory`."""
    weights = canonical_tensors(network.config, network.state_dict())
    write_tensors(stored_tensors(weights), directory / WEIGHTS)
    moments = {
        f"{moment}.{name}": _unread(optimizer.state[parameter][moment])
        for name, parameter in network.named_parameters()
        for moment in MOMENTS
    }
    write_tensors(moments, directory / OPTIMIZER)


def wake_optimizer(network: GPT2, optimizer: torch.optim.Optimizer, directory: Path, step: int) -> None:
    """Give `optimizer` the moments that `freeze` wrote after `step` steps."""
    stored = open_tensors(directory / OPTIMIZER)
    for name, parameter in network.named_parameters():
        state: dict[str, Any] = {"step": torch.tensor(float(step), device=parameter.device)}
        for moment in MOMENTS:
            state[moment] = _restored(stored, f"{moment}.{name}", parameter, directory)
        optimizer.state[parameter] = state


def _restored(
    stored: Mapping[str, LazyTensor], name: str, parameter: torch.nn.Parameter, directory: Path
) -> torch.Tensor:
    tensor = stored.get(name)
    if tensor is None or tensor.shape != tuple(parameter.shape):
        found = "missing" if tensor is None else tensor.shape
        raise WeightMismatch(f"{directory / OPTIMIZER}: {name} is {found}; the model asks for {tuple(parameter.shape)}")
    return torch.from_numpy(tensor.read().copy()).to(parameter.device)


def _unread(values: torch.Tensor) -> LazyTensor:
    return LazyTensor("moment", "float32", tuple(values.shape), lambda: values.cpu().numpy())
