"""The format "nanogpt": ckpt.pt of Karpathy's nanoGPT, or a directory that holds one.

    {"model": state_dict, "optimizer", "model_args": {n_layer, n_head, n_embd, block_size, bias, vocab_size, dropout},
     "iter_num", "best_val_loss", "config": the settings of its train.py}
Names are those of PyTorch's modules, "_orig_mod." before them where torch.compile was used; matrices stand as
[out, in]; without `bias` there are no biases, which is as if they were 0. The vocabulary, often filled up to 50304, is
not in the file: sample.py takes GPT-2's, or that of the text's characters, data/DATASET/meta.pkl: a pickle, which is
read, not run, where it lies beside ckpt.pt.
nanoGPT computes gelu_exact. For a model of another activation, config["activation"] says so; only gpt2kit heeds it. The
optimizer that is written remembers nothing, and lets `train.py --init_from=resume` go on with the weights.
Source: github.com/karpathy/nanoGPT, model.py, sample.py and train.py.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from gpt2kit.atomic import replace_bytes
from gpt2kit.checkpoint import Checkpoint, LazyTensor, check_tensors, tensor_shapes
from gpt2kit.config.model import Activation, ModelConfig
from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.formats.huggingface import read_tokenizer_files
from gpt2kit.formats.state_dict import canonical, settle_head, stored_tensors
from gpt2kit.formats.torch_file import is_torch_file, named_tensors, read_object, write_object
from gpt2kit.formats.torch_pickle import REFUSED, Pickles
from gpt2kit.json_object import read_small
from gpt2kit.progress import Report
from gpt2kit.tokenizer.characters import CHARACTERS, checked

FILE = "ckpt.pt"
KEYS = {"model", "model_args"}
SHAPE = {"layers": "n_layer", "heads": "n_head", "width": "n_embd", "window": "block_size", "vocab_size": "vocab_size"}
NORM_EPSILON = 1e-5
META = "meta.pkl"


def sniff(path: Path) -> bool:
    """Whether `path` is such a file, or a directory with one."""
    if path.is_dir():
        return (path / FILE).is_file()
    try:
        return path.is_file() and is_torch_file(path) and _is_ours(read_object(path))
    except FormatError:
        return False


def read(path: Path, *, step: int | None = None) -> Checkpoint:
    """The checkpoint at `path`; a vocabulary lies beside it, if anywhere."""
    file = path / FILE if path.is_dir() else path
    found = read_object(file)
    if not isinstance(found, dict) or not _is_ours(found):
        raise FormatError(file, None, f"not a checkpoint of nanoGPT; expected a dict with {' and '.join(sorted(KEYS))}")
    config = _config(found, file)
    tensors = canonical(named_tensors(found["model"], file), file)
    config, tensors = settle_head(config, tensors, file)
    biases = {name: shape for name, shape in tensor_shapes(config).items() if name.endswith(".bias")}
    tensors = {name: _turned(tensor) for name, tensor in tensors.items()}
    if found["model_args"].get("bias") is False:
        absent = {name: shape for name, shape in biases.items() if name not in tensors}
        tensors |= {
            name: LazyTensor(name, "float32", shape, partial(np.zeros, shape, np.float32))
            for name, shape in absent.items()
        }
    number = found.get("iter_num")
    checkpoint = Checkpoint(
        config, tensors, _tokenizer_files(file), str(path), step=number if type(number) is int else None
    )
    check_tensors(checkpoint)
    return checkpoint


def write(checkpoint: Checkpoint, path: Path, report: Report) -> None:
    """Write the directory `path`: ckpt.pt, for sample.py and train.py, and the tokenizer's files beside it."""
    config = checkpoint.config
    ordinary = replace(
        config,
        activation="gelu_exact",
        norm_epsilon=NORM_EPSILON,
        inner_width=4 * config.width,
        tied_head=True,
        scale_attention=True,
        scale_attention_by_layer=False,
    )
    if replace(config, activation="gelu_exact") != ordinary:
        raise ConfigError(
            f"nanoGPT has one head, the embedding, an inner width of four times the width, and an epsilon of "
            f"{NORM_EPSILON}; {checkpoint.origin} has not, and would be another model there"
        )
    if config.activation != ordinary.activation:
        warnings.warn(
            f"nanoGPT computes gelu_exact, this model {config.activation}: there its logits differ a little",
            stacklevel=2,
        )
    model = stored_tensors({name: _turned(tensor) for name, tensor in checkpoint.tensors.items()})
    embedding = model["transformer.wte.weight"]
    shape: dict[str, object] = {theirs: getattr(config, ours) for ours, theirs in SHAPE.items()}
    path.mkdir(parents=True, exist_ok=True)
    for name, content in checkpoint.tokenizer_files.items():
        replace_bytes(path / name, content)
    write_object(
        {
            "model": {**model, "lm_head.weight": replace(embedding, name="lm_head.weight")},
            "optimizer": _new_optimizer(config),
            "model_args": {**shape, "bias": True, "dropout": 0.0},
            "iter_num": checkpoint.step or 0,
            "best_val_loss": 1e9,
            "config": {"activation": config.activation},
        },
        path / FILE,
        report,
    )


def _is_ours(found: object) -> bool:
    return isinstance(found, dict) and found.keys() >= KEYS and isinstance(found["model_args"], dict)


def _config(found: Mapping[str, Any], file: Path) -> ModelConfig:
    arguments, settings = found["model_args"], found.get("config")
    for name in SHAPE.values():
        if type(arguments.get(name)) is not int:
            raise FormatError(file, None, f"model_args: {name} is {arguments.get(name)!r:.80}; expected a whole number")
    activation = settings.get("activation") if isinstance(settings, dict) else None
    known: tuple[Activation, ...] = get_args(Activation)
    try:
        return ModelConfig(
            **{ours: arguments[theirs] for ours, theirs in SHAPE.items()},
            inner_width=4 * arguments["n_embd"],
            activation=next((each for each in known if each == activation), "gelu_exact"),
            norm_epsilon=NORM_EPSILON,
        )
    except ConfigError as error:
        raise FormatError(file, None, f"model_args: {error}") from None


def _new_optimizer(config: ModelConfig) -> dict[str, object]:
    """The state of model.py's AdamW before its first step, as train.py sets it: matrices decay, vectors not."""
    shapes = tensor_shapes(config).values()
    matrices = sum(len(shape) == 2 for shape in shapes)
    settings = {"lr": 6e-4, "betas": [0.9, 0.95], "eps": 1e-8}
    groups = [
        {**settings, "weight_decay": weight_decay, "params": list(numbers)}
        for weight_decay, numbers in ((0.1, range(matrices)), (0.0, range(matrices, len(shapes))))
    ]
    return {"state": {}, "param_groups": groups}


def _turned(tensor: LazyTensor) -> LazyTensor:
    """A matrix of a layer from [out, in] to [in, out], or back; any other tensor as it is."""
    if len(tensor.shape) != 2 or not tensor.name.startswith("h."):
        return tensor
    return replace(tensor, shape=tensor.shape[::-1], load=lambda: tensor.read().T)


def _tokenizer_files(file: Path) -> dict[str, bytes]:
    files = read_tokenizer_files(file.parent)
    meta = file.parent / META
    if files or not meta.is_file():
        return files
    try:
        return {CHARACTERS: json.dumps(_characters(meta), ensure_ascii=False).encode()}
    except FormatError as error:
        problem = error.problem.removesuffix(f"; {REFUSED}")
        warnings.warn(f"{meta}: {problem}; nothing of it was run, and only the weights are read", stacklevel=3)
        return {}


def _characters(meta: Path) -> list[str]:
    """Those of nanoGPT's prepare.py, {"vocab_size", "itos": {id: character}, "stoi"}, in the order of their ids."""
    found = Pickles(meta, read_small(meta), 0, lambda tensor: tensor).next()
    character_of = found.get("itos") if isinstance(found, dict) else None
    if not isinstance(character_of, dict) or not all(type(id) is int for id in character_of):
        raise FormatError(meta, None, "expected a dict whose itos has the character of every id")
    if sorted(character_of) != list(range(len(character_of))):
        raise FormatError(meta, None, f"itos has {len(character_of):,} ids; expected them to be 0, 1, 2, ...")
    return checked([character_of[id] for id in range(len(character_of))], str(meta))
