"""Hugging Face's directory, our native storage: config.json, model.safetensors (or shards), tokenizer files.

config.json, what counts here: vocab_size, n_positions (older files: n_ctx), n_embd, n_layer, n_head, n_inner (null is
    4 * n_embd), activation_function, layer_norm_epsilon, tie_word_embeddings, scale_attn_weights,
    scale_attn_by_inverse_layer_idx. Missing ones take GPT-2's values.
Tensor names may carry the prefix "transformer."; h.N.attn.bias and h.N.attn.masked_bias are causal masks, not weights.
Shards: model.safetensors.index.json = {"metadata": {...}, "weight_map": {tensor name: file name}}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt2kit.atomic import replace_bytes
from gpt2kit.checkpoint import TOKENIZER_FILES, Checkpoint, LazyTensor, check_tensors
from gpt2kit.config.limits import require
from gpt2kit.config.model import Activation, ModelConfig
from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.formats.safetensors_file import open_tensors, write_tensors
from gpt2kit.json_object import parse_object
from gpt2kit.progress import Progress, Report
from gpt2kit.tokenizer.vocabulary import holds_vocabulary, read_vocabulary

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu_exact",
    "relu": "relu",
}
# OpenAI's names and ours for the same bytes.
HUGGING_FACE_NAMES = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}


def sniff(path: Path) -> bool:
    """Whether `path` is such a directory, or a file of weights in one."""
    if path.is_file():
        return path.suffix == ".safetensors"
    return (path / WEIGHTS).is_file() or (path / INDEX).is_file()


def read(path: Path, *, step: int | None = None, model_dir: Path | None = None) -> Checkpoint:
    """The checkpoint at `path`: a directory, or a single .safetensors file with its config.json beside it.

    Args:
        path: where the weights are.
        step: recorded in the result; the layout itself knows no steps.
        model_dir: where config.json and the tokenizer files are, if not beside the weights.
    """
    home = model_dir or (path.parent if path.is_file() else path)
    config = read_config(home / CONFIG)
    found = open_tensors(path) if path.is_file() else _open_weights(path)
    tensors = {}
    for stored_name, tensor in found.items():
        name = stored_name.removeprefix("transformer.")
        if MASK.fullmatch(name) or (name == "lm_head.weight" and config.tied_head):
            continue
        tensors[name] = replace(tensor, name=name)
    checkpoint = Checkpoint(config, tensors, read_tokenizer_files(home), str(path), step)
    check_tensors(checkpoint)
    return checkpoint


def read_tokenizer_files(directory: Path) -> dict[str, bytes]:
    """Every file in `directory` that a tokenizer is read from, by name."""
    return {name: (directory / name).read_bytes() for name in TOKENIZER_FILES if (directory / name).is_file()}


def write(checkpoint: Checkpoint, path: Path, report: Report) -> None:
    """Write the directory `path`; weights come last, so a directory with weights is whole."""
    path.mkdir(parents=True, exist_ok=True)
    write_surroundings(checkpoint, path)
    write_tensors(stored_tensors(checkpoint.tensors), path / WEIGHTS)
    report(Progress("write", 1, 1, "file"))


def write_surroundings(checkpoint: Checkpoint, path: Path) -> None:
    """Write all but the weights: config.json and the tokenizer files."""
    files = {HUGGING_FACE_NAMES.get(name, name): content for name, content in checkpoint.tokenizer_files.items()}
    end_id = read_vocabulary(files, checkpoint.origin).end_id if holds_vocabulary(files) else None
    for name, content in files.items():
        replace_bytes(path / name, content)
    first_dtype = next(iter(checkpoint.tensors.values())).dtype
    config = json.dumps(config_json(checkpoint.config, end_id, first_dtype), indent=2) + "\n"
    replace_bytes(path / CONFIG, config.encode())


def stored_tensors(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Canonical tensors under the names that transformers' GPT2LMHeadModel saves."""
    return {name if name == "lm_head.weight" else f"transformer.{name}": t for name, t in tensors.items()}


def config_json(config: ModelConfig, end_id: int | None, dtype: str) -> dict[str, Any]:
    """What config.json says; both n_positions and n_ctx, since readers differ in which they want."""
    activation = next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.window,
        "n_ctx": config.window,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": None if config.inner_width == 4 * config.width else config.inner_width,
        "activation_function": activation,
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.tied_head,
        "scale_attn_weights": config.scale_attention,
        "scale_attn_by_inverse_layer_idx": config.scale_attention_by_layer,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def read_config(path: Path) -> ModelConfig:
    """The configuration in a config.json. What would change the mathematics and is unknown here is refused."""
    try:
        stored = parse_object(path.read_bytes(), path)
    except FileNotFoundError:
        raise FormatError(
            path, None, "missing; it tells the shape of the model, copy it from where the weights came from"
        ) from None
    if stored.get("model_type", "gpt2") != "gpt2":
        raise FormatError(path, None, f"describes a {stored['model_type']!r} model; expected 'gpt2'")
    if stored.get("add_cross_attention"):
        raise FormatError(path, None, "add_cross_attention is true: an encoder-decoder, not a GPT-2")
    activation = stored.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise FormatError(path, None, f"activation_function is {activation!r}; known are {', '.join(ACTIVATIONS)}")
    try:
        return _converted(stored, ACTIVATIONS[activation])
    except (ConfigError, TypeError, ValueError) as error:
        raise FormatError(path, None, str(error)) from None


def _converted(stored: Mapping[str, Any], activation: Activation) -> ModelConfig:
    def whole(*names: str, default: int) -> int:
        value = next((stored[name] for name in names if stored.get(name) is not None), default)
        require(type(value) is int, f"{names[0]} is {value!r}; expected a whole number")
        return value

    width = whole("n_embd", default=768)
    return ModelConfig(
        vocab_size=whole("vocab_size", "n_vocab", default=50257),
        window=whole("n_positions", "n_ctx", default=1024),
        width=width,
        layers=whole("n_layer", default=12),
        heads=whole("n_head", default=12),
        inner_width=whole("n_inner", default=4 * width),
        activation=activation,
        tied_head=stored.get("tie_word_embeddings") is not False,
        norm_epsilon=float(stored.get("layer_norm_epsilon", 1e-5)),
        scale_attention=stored.get("scale_attn_weights") is not False,
        scale_attention_by_layer=stored.get("scale_attn_by_inverse_layer_idx") is True,
    )


def _open_weights(directory: Path) -> dict[str, LazyTensor]:
    if (directory / WEIGHTS).is_file():
        return open_tensors(directory / WEIGHTS)
    index = directory / INDEX
    if not index.is_file():
        raise FormatError(directory, None, f"holds no weights; expected {WEIGHTS} or {INDEX}")
    placed = parse_object(index.read_bytes(), index).get("weight_map")
    if not isinstance(placed, dict):
        raise FormatError(index, None, "expected a weight_map from tensor names to file names")
    beside = {path.name for path in directory.iterdir()}
    tensors: dict[str, LazyTensor] = {}
    for shard in sorted(set(map(str, placed.values()))):
        # A name that leads elsewhere is an attack, not a shard.
        if shard not in beside:
            raise FormatError(index, None, f"names the shard {shard!r:.80}; expected a file in the same directory")
        tensors |= {
            name: tensor for name, tensor in open_tensors(directory / shard).items() if placed.get(name) == shard
        }
    if missing := sorted(set(placed) - set(tensors)):
        raise FormatError(index, None, f"{len(missing)} tensors are in none of the shards, such as {missing[0]}")
    return tensors
