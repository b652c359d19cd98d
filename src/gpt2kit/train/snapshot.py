"""Freeze and wake: network and optimizer to files of a step, and back.

optimizer.safetensors holds what the optimizer remembers of each parameter, under torch's names: "exp_avg.<parameter>",
"exp_avg_sq.<parameter>", "momentum_buffer.<parameter>". How many steps AdamW counts is part of state.json: steps that
were skipped, for their loss scale was too large, do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import WeightMismatch
from gpt2kit.formats.huggingface import WEIGHTS
from gpt2kit.formats.safetensors_file import open_tensors, write_tensors
from gpt2kit.formats.state_dict import stored_tensors
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.weights import canonical_tensors
from gpt2kit.train.optimizer import Optimizer

OPTIMIZER = "optimizer.safetensors"


def freeze(network: GPT2, optimizer: Optimizer, directory: Path) -> None:
    """Write model.safetensors and optimizer.safetensors into `directory`."""
    weights = canonical_tensors(network.config, network.state_dict())
    write_tensors(stored_tensors(weights), directory / WEIGHTS)
    names = {weight: name for name, weight in network.named_parameters()}
    moments = {
        f"{moment}.{names[weight]}": _unread(state[moment])
        for weight, state in optimizer.memory()
        for moment in optimizer.remembers(weight)
        if moment in state  # nothing is remembered before the first update
    }
    write_tensors(moments, directory / OPTIMIZER)


def wake_optimizer(network: GPT2, optimizer: Optimizer, directory: Path, updates: int) -> None:
    """Give `optimizer` what `freeze` wrote after `updates` updates of the weights."""
    if updates == 0:
        return
    stored = open_tensors(directory / OPTIMIZER)
    names = {weight: name for name, weight in network.named_parameters()}
    for weight, state in optimizer.memory():
        state["step"] = torch.tensor(float(updates), device=weight.device)
        for moment in optimizer.remembers(weight):
            state[moment] = _restored(stored, f"{moment}.{names[weight]}", weight, directory)


def _restored(
    stored: Mapping[str, LazyTensor], name: str, parameter: torch.nn.Parameter, directory: Path
) -> torch.Tensor:
    tensor = stored.get(name)
    if tensor is None or tensor.shape != tuple(parameter.shape):
        found = "missing" if tensor is None else tensor.shape
        raise WeightMismatch(
            f"{directory / OPTIMIZER}: {name} is {found}; expected {tuple(parameter.shape)}; start another run from "
            f"these weights: --model {directory} --run-name ANOTHER"
        )
    return torch.from_numpy(tensor.read().copy()).to(parameter.device)


def _unread(values: torch.Tensor) -> LazyTensor:
    return LazyTensor("moment", "float32", tuple(values.shape), lambda: values.cpu().numpy())
