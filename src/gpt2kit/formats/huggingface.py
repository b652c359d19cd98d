"""Hugging Face's directory, our native storage: config.json, model.safetensors (or shards), tokenizer files.

config.json, what counts here: vocab_size, n_positions (older files: n_ctx), n_embd, n_layer, n_head, n_inner (null is
    4 * n_embd), activation_function, layer_norm_epsilon, tie_word_embeddings, scale_attn_weights,
    scale_attn_by_inverse_layer_idx. Missing ones take GPT-2's values.
The names of tensors are those of PyTorch's modules (state_dict.py). Runs of a GPT2-ML have this layout too, with its
settings (gpt2_ml_config.py); no other program knows that.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2kit.atomic import replace_bytes
from gpt2kit.checkpoint import TOKENIZER_FILES, Checkpoint, LazyTensor, check_tensors
from gpt2kit.config.limits import require
from gpt2kit.config.model import Activation, ModelConfig
from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.formats import gpt2_ml_config, keras_names
from gpt2kit.formats.safetensors_file import is_safetensors, open_tensors, write_tensors
from gpt2kit.formats.shapes import config_from_shapes
from gpt2kit.formats.shards import open_shards, write_shards
from gpt2kit.formats.state_dict import HEAD, canonical, settle_head, stored_tensors
from gpt2kit.json_object import read_object, read_small
from gpt2kit.progress import Report
from gpt2kit.tokenizer.open import holds_tokenizer, holds_vocabulary, open_tokenizer
from gpt2kit.tokenizer.protocol import ending_id
from gpt2kit.tokenizer.vocabulary import HUGGING_FACE_PAIR, OPENAI_PAIR, vocabulary_files

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r".*-\d{5}-of-(?!00001)\d{5}\.\w+")
ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu_exact",
    "relu": "relu",
}


def sniff(path: Path) -> bool:
    """Whether `path` is such a directory, or a file of weights in one."""
    if path.is_file():
        return path.suffix == ".safetensors" or is_safetensors(path)
    return (path / WEIGHTS).is_file() or (path / INDEX).is_file()


def read(path: Path, *, step: int | None = None, model_dir: Path | None = None) -> Checkpoint:
    """The checkpoint at `path`: a directory, or a single .safetensors file with its config.json beside it.

    Args:
        path: where the weights are.
        step: recorded in the result; the layout itself knows no steps.
        model_dir: where config.json and the tokenizer files are, if not beside the weights.
    """
    home = model_dir or (path.parent if path.is_file() else path)
    found = _open_weights(path)
    # TensorFlow's models can be saved as safetensors too.
    tensors = keras_names.canonical(found, path) if keras_names.are_keras_names(found) else canonical(found, path)
    return checkpoint_of(tensors, home, path, step)


def checkpoint_of(
    tensors: Mapping[str, LazyTensor], home: Path, path: Path, step: int | None, config_name: str = CONFIG
) -> Checkpoint:
    """The checkpoint of canonical `tensors` found at `path`, with the settings and the tokenizer files in `home`."""
    if path.is_file() and SHARD.fullmatch(path.name):
        raise FormatError(path, None, "one of several shards; name the directory that holds them all")
    if (home / config_name).is_file():
        config = read_config(home / config_name)
    else:
        without_head = {name: tensor for name, tensor in tensors.items() if name != HEAD}
        config = config_from_shapes(without_head, path, config_name)
    config, tensors = settle_head(config, tensors, path)
    checkpoint = Checkpoint(config, tensors, read_tokenizer_files(home), str(path), step)
    check_tensors(checkpoint)
    return checkpoint


def read_tokenizer_files(directory: Path) -> dict[str, bytes]:
    """Every file in `directory` that a tokenizer is read from, by name."""
    return {name: read_small(directory / name) for name in TOKENIZER_FILES if (directory / name).is_file()}


def write(checkpoint: Checkpoint, path: Path, report: Report, *, shard_bytes: int | None = None) -> None:
    """Write the directory `path`, in files of at most `shard_bytes`; weights come last: who has them is whole."""
    write_surroundings(checkpoint, path)
    write_shards(stored_tensors(checkpoint.tensors), path / WEIGHTS, write_tensors, report, shard_bytes)


def write_surroundings(checkpoint: Checkpoint, path: Path) -> None:
    """Make the directory `path`, and write all but the weights: config.json and the tokenizer files."""
    path.mkdir(parents=True, exist_ok=True)
    files = {name: text for name, text in checkpoint.tokenizer_files.items() if name not in OPENAI_PAIR}
    end_id = None
    if holds_tokenizer(checkpoint.tokenizer_files):
        try:
            tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
            end_id = ending_id(tokenizer)
            if holds_vocabulary(checkpoint.tokenizer_files) and not set(HUGGING_FACE_PAIR) <= set(files):
                contents = vocabulary_files(checkpoint.tokenizer_files, checkpoint.origin)
                files |= dict(zip(HUGGING_FACE_PAIR, contents, strict=True))
        except FormatError as error:
            warnings.warn(f"{error}; its files are copied as they are", stacklevel=3)
    for name, content in files.items():
        replace_bytes(path / name, content)
    first_dtype = next(iter(checkpoint.tensors.values())).dtype
    config = json.dumps(config_json(checkpoint.config, end_id, first_dtype), indent=2) + "\n"
    replace_bytes(path / CONFIG, config.encode())


def config_json(config: ModelConfig, end_id: int | None, dtype: str) -> dict[str, Any]:
    """What config.json says; both n_positions and n_ctx, since readers differ in which they want."""
    if config.architecture == "gpt2-ml":
        return gpt2_ml_config.config_json(config, end_id, dtype)
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
        "initializer_range": 0.02,  # of no use here; the readers of 2019 fail without it
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
        stored = read_object(path)
    except FileNotFoundError:
        raise FormatError(
            path, None, "missing; it tells the shape of the model, copy it from where the weights came from"
        ) from None
    if stored.get("model_type") == gpt2_ml_config.MODEL_TYPE:
        return gpt2_ml_config.config_of(stored, path)
    if stored.get("model_type", "gpt2") != "gpt2":
        raise FormatError(path, None, f"describes a {stored['model_type']!r} model; expected 'gpt2'")
    if stored.get("quantization_config"):
        raise FormatError(path, None, "the weights are quantised; save the model in full precision first")
    if stored.get("add_cross_attention"):
        raise FormatError(path, None, "add_cross_attention is true: an encoder-decoder, not a GPT-2")
    activation = stored.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise FormatError(path, None, f"activation_function is {activation!r}; known are {', '.join(ACTIVATIONS)}")
    try:
        return _converted(stored, ACTIVATIONS[activation])
    except (ConfigError, TypeError, ValueError, OverflowError) as error:
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


def _open_weights(path: Path) -> dict[str, LazyTensor]:
    if path.is_file():
        return open_tensors(path)
    if (path / WEIGHTS).is_file():
        return open_tensors(path / WEIGHTS)
    if (path / INDEX).is_file():
        return open_shards(path / INDEX, open_tensors)
    raise FormatError(path, None, f"holds no weights; expected {WEIGHTS} or {INDEX}")
