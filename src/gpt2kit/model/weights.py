"""Network <-> Checkpoint. The one place where matrices turn: canonical is [in, out], nn.Linear wants [out, in]."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from gpt2kit.checkpoint import LazyTensor, tensor_shapes
from gpt2kit.config.model import ModelConfig
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.gpt2_ml import GPT2ML

# OpenAI stored these as Conv1D. Square c_proj would load either way round, and be wrong one way.
TURNED = re.compile(r"h\.\d+\.(attn|mlp)\.\w+\.weight")


def to_network(config: ModelConfig, tensors: Mapping[str, LazyTensor], dropout: float = 0.0) -> GPT2:
    """A network in float32 with these canonical tensors, on the CPU. It owns its memory."""
    with torch.device("meta"), _WithoutValues():
        network = GPT2ML(config, dropout) if config.architecture == "gpt2-ml" else GPT2(config, dropout)
    network.load_state_dict({name: _owned(tensors[name]) for name in tensor_shapes(config)}, assign=True)
    return network.requires_grad_(True)


class _WithoutValues(TorchFunctionMode):
    """New layers draw no first weights, which the checkpoint's would replace: on "meta" that alone takes a second."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs.get("tensor", args[0] if args else None)
        return function(*args, **kwargs)


def _owned(tensor: LazyTensor) -> torch.Tensor:
    values = tensor.read_float32()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is only read
        stored = torch.from_numpy(values)
    # torch turns a matrix on all cores; numpy on one. Of a matrix that lies turned in its file a copy, too.
    return (stored.t() if TURNED.fullmatch(tensor.name) else stored).clone(memory_format=torch.contiguous_format)


def canonical_tensors(config: ModelConfig, state: Mapping[str, torch.Tensor]) -> dict[str, LazyTensor]:
    """Tensors named and shaped as the network's parameters (weights, moments), as canonical float32 ones, unread."""

    def load(name: str) -> np.ndarray:
        values = state[name].detach().float().cpu().numpy()
        return values.T if TURNED.fullmatch(name) else values

    return {
        name: LazyTensor(name, "float32", shape, lambda name=name: load(name))  # type: ignore[misc]
        for name, shape in tensor_shapes(config).items()
    }
