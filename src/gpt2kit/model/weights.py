"""Network <-> Checkpoint. The one place where matrices turn: canonical is [in, out], nn.Linear wants [out, in]."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch

from gpt2kit.checkpoint import LazyTensor, tensor_shapes
from gpt2kit.config.model import ModelConfig
from gpt2kit.model.gpt2 import GPT2

# OpenAI stored these as Conv1D. Square c_proj would load either way round, and be wrong one way.
TURNED = re.compile(r"h\.\d+\.(attn|mlp)\.\w+\.weight")


def to_network(config: ModelConfig, tensors: Mapping[str, LazyTensor], dropout: float = 0.0) -> GPT2:
    """A network in float32 with these canonical tensors, on the CPU. It owns its memory."""
    with torch.device("meta"):
        network = GPT2(config, dropout)
    state = {}
    for name in tensor_shapes(config):
        values = tensors[name].read_float32()
        state[name] = torch.from_numpy(np.array(values.T if TURNED.fullmatch(name) else values, order="C"))
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(True)


def canonical_tensors(config: ModelConfig, state: Mapping[str, torch.Tensor]) -> dict[str, LazyTensor]:
    """Tensors named and shaped as the network's parameters (weights, moments), as canonical float32 ones, unread."""

    def load(name: str) -> np.ndarray:
        values = state[name].detach().float().cpu().numpy()
        return values.T if TURNED.fullmatch(name) else values

    return {
        name: LazyTensor(name, "float32", shape, lambda name=name: load(name))  # type: ignore[misc]
        for name, shape in tensor_shapes(config).items()
    }
