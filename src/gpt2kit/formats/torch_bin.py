"""The format "bin": Hugging Face's directory with pytorch_model.bin (or shards), or such a file alone.

config.json, tokenizer files, names of tensors and the index of shards are those of `huggingface`; the file is that of
`torch_file`. Kept by the first releases, and read here: config and vocabulary called gpt2-config.json, gpt2-vocab.json
and gpt2-merges.txt, weights called gpt2-pytorch_model.bin. Trainers that keep their state beside the weights file these
under some name ("state_dict", "model"). Causal masks are not written: no reader of these files misses them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint, LazyTensor
from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.formats.huggingface import CONFIG, checkpoint_of, write_surroundings
from gpt2kit.formats.shards import open_shards, write_shards
from gpt2kit.formats.state_dict import canonical, holds_weights, stored_tensors
from gpt2kit.formats.torch_file import is_torch_file, named_tensors, read_object, write_object
from gpt2kit.formats.torch_pickle import STORAGE_OF
from gpt2kit.json_object import read_small
from gpt2kit.progress import Report

WEIGHTS, INDEX, FIRST_WEIGHTS = "pytorch_model.bin", "pytorch_model.bin.index.json", "gpt2-pytorch_model.bin"
FIRST_CONFIG = "gpt2-config.json"
FIRST_TOKENIZER = {"gpt2-vocab.json": "vocab.json", "gpt2-merges.txt": "merges.txt"}
NANOGPT = {"model", "model_args"}


def sniff(path: Path) -> bool:
    """Whether `path` is a directory with such weights, or a file of torch.save."""
    if path.is_file():
        return is_torch_file(path) or path.name in (WEIGHTS, FIRST_WEIGHTS)
    return any((path / name).is_file() for name in (WEIGHTS, INDEX, FIRST_WEIGHTS))


def read(path: Path, *, step: int | None = None, model_dir: Path | None = None) -> Checkpoint:
    """The checkpoint at `path`, a directory or one file; config.json and tokenizer lie beside it, or in `model_dir`.

    Without a config.json the shapes tell, and a warning says what was guessed.
    """
    home = model_dir or (path.parent if path.is_file() else path)
    config = FIRST_CONFIG if (home / FIRST_CONFIG).is_file() and not (home / CONFIG).is_file() else CONFIG
    checkpoint = checkpoint_of(canonical(_open_weights(path), path), home, path, step, config)
    return replace(checkpoint, tokenizer_files={**_first_tokenizer_files(home), **checkpoint.tokenizer_files})


def write(checkpoint: Checkpoint, path: Path, report: Report, *, shard_bytes: int | None = None) -> None:
    """Write the directory `path`, in files of at most `shard_bytes`; weights come last: who has them is whole."""
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype not in STORAGE_OF:
            raise ConfigError(f"{name} is {tensor.dtype}, which a .bin file cannot hold; the format safetensors can")
    write_surroundings(checkpoint, path)
    write_shards(_with_head(checkpoint), path / WEIGHTS, write_object, report, shard_bytes)


def _with_head(checkpoint: Checkpoint) -> dict[str, LazyTensor]:
    """The state of transformers' GPT2LMHeadModel: a tied head is there, and shares the embedding's storage."""
    stored = stored_tensors(checkpoint.tensors)
    if not checkpoint.config.tied_head:
        return stored
    embedding = stored.pop("transformer.wte.weight")
    head = replace(embedding, name="lm_head.weight")
    return {"transformer.wte.weight": embedding, "lm_head.weight": head} | stored


def _open_weights(path: Path) -> dict[str, LazyTensor]:
    if path.is_file():
        return _open_file(path)
    for name in (WEIGHTS, FIRST_WEIGHTS):
        if (path / name).is_file():
            return _open_file(path / name)
    if (path / INDEX).is_file():
        return open_shards(path / INDEX, _open_file)
    raise FormatError(path, None, f"holds no weights; expected {WEIGHTS} or {INDEX}")


def _open_file(path: Path) -> dict[str, LazyTensor]:
    found = read_object(path)
    if isinstance(found, dict):
        if found.keys() >= NANOGPT:
            raise FormatError(path, None, "a checkpoint of nanoGPT; rename it to ckpt.pt, or name the file itself")
        # Trainers save weights beside an optimizer and counters, each under its own name for them.
        nested = [inner for inner in found.values() if isinstance(inner, dict) and holds_weights(inner)]
        found = nested[0] if len(nested) == 1 and not holds_weights(found) else found
    return named_tensors(found, path)


def _first_tokenizer_files(home: Path) -> dict[str, bytes]:
    return {name: read_small(home / old) for old, name in FIRST_TOKENIZER.items() if (home / old).is_file()}
