"""The names that Keras gives to the tensors of transformers' TFGPT2LMHeadModel, and the canonical ones.

    wte/embeddings:0 (until about 4.20 wte/weight:0)   wpe/embeddings:0   ln_f/gamma:0, beta:0
    h_._N/ln_1/gamma:0, beta:0   h_._N/attn/c_attn/weight:0 [D, 3D], bias:0 [1, 3D]   h_._N/attn/c_proj/...
    h_._N/ln_2/gamma:0, beta:0   h_._N/mlp/c_fc/...   h_._N/mlp/c_proj/...
Before them stands a scope that ends in "transformer/", which differs between classes and versions.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError

OURS = {"embeddings": "weight", "weight": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
SCOPE, SECOND_HEAD = "tfgpt2lm_head_model/transformer", "multiple_choice_head/"


def are_keras_names(names: Iterable[str]) -> bool:
    """Whether tensors of these names are Keras's."""
    return any("transformer/" in name for name in names)


def canonical(datasets: Mapping[str, LazyTensor], file: Path) -> dict[str, LazyTensor]:
    """The datasets of one `file` by canonical name, biases without Keras's extra dimension. Raises FormatError."""
    tensors: dict[str, LazyTensor] = {}
    left_out = [dataset for dataset in datasets if SECOND_HEAD in dataset]
    if left_out:
        warnings.warn(f"{file}: left out, for only the language model is read: {', '.join(left_out)}", stacklevel=2)
    for dataset, tensor in datasets.items():
        if dataset in left_out:
            continue
        name = _canonical_name(dataset, file)
        if name in tensors:
            raise FormatError(file, None, f"{dataset!r:.200} is a second {name}")
        tensors[name] = _flat(replace(tensor, name=name))
    return tensors


def keras_name(name: str) -> str:
    """What Keras calls the tensor of this canonical name."""
    module, _, parameter = name.rpartition(".")
    if module in {"wte", "wpe"}:
        parameter = "embeddings"
    elif module.rpartition(".")[2].startswith("ln_"):
        parameter = {"weight": "gamma", "bias": "beta"}[parameter]
    return f"{SCOPE}/{module.replace('.', '/').replace('h/', 'h_._', 1)}/{parameter}:0"


def _canonical_name(dataset: str, file: Path) -> str:
    module, _, parameter = dataset.rpartition("transformer/")[2].removesuffix(":0").rpartition("/")
    if parameter not in OURS or not module:
        raise FormatError(file, None, f"{dataset!r:.200} is no tensor of a GPT-2 as Keras names them")
    return f"{module.replace('h_._', 'h.').replace('/', '.')}.{OURS[parameter]}"


def _flat(tensor: LazyTensor) -> LazyTensor:
    if not tensor.name.endswith(".bias") or len(tensor.shape) != 2 or tensor.shape[0] != 1:
        return tensor
    return replace(tensor, shape=tensor.shape[1:], load=lambda: tensor.read()[0])
