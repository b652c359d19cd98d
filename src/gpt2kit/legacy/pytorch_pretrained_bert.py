"""convert_gpt2_checkpoint of pytorch_pretrained_bert 0.6.2: a TensorFlow checkpoint becomes a pytorch_model.bin.

The settings file that it takes may be OpenAI's hparams.json as it was downloaded, the same with the keys added that the
old program failed without, or a config.json. Shapes come from the tensors, and the file must not contradict them.
"""

from __future__ import annotations

import json
import os
import shutil
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from filecmp import cmp
from pathlib import Path
from tempfile import TemporaryDirectory

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.limits import require
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError, WeightMismatch
from gpt2kit.formats import huggingface, openai
from gpt2kit.jobs.convert import convert
from gpt2kit.json_object import read_object
from gpt2kit.legacy.bars import bars
from gpt2kit.resolve import open_checkpoint
from gpt2kit.tokenizer.open import holds_vocabulary

PROGRAM = "gpt2 legacy pytorch_pretrained_bert"
USAGE = f"""Should be used as:
>> `{PROGRAM} convert_gpt2_checkpoint TF_CHECKPOINT PYTORCH_DUMP_OUTPUT [GPT2_CONFIG]`"""
WEIGHTS, CONFIG = "pytorch_model.bin", "config.json"
# Two names of one number: the one of hparams.json, the one of config.json.
SAME = {"n_vocab": "vocab_size", "n_ctx": "n_positions"}
KEYS = {ours: theirs for theirs, ours in openai.FIELDS.items()} | {"inner_width": "n_inner"}


def main(words: Sequence[str]) -> int:
    """pytorch_pretrained_bert, of which convert_gpt2_checkpoint is left."""
    if not words or words[0] != "convert_gpt2_checkpoint":
        print(USAGE)
        return 0
    return convert_gpt2_checkpoint(words[1:])


def convert_gpt2_checkpoint(words: Sequence[str]) -> int:
    """TF_CHECKPOINT PYTORCH_DUMP_OUTPUT [GPT2_CONFIG]. Wrong usage is answered with the right one, and status 0."""
    if len(words) not in (2, 3) or any(word.startswith("-") for word in words):
        print(USAGE)
        return 0
    return _convert(words[0], Path(words[1]), Path(words[2]) if len(words) == 3 else None)


def convert_gpt2_checkpoint_to_pytorch(words: Sequence[str]) -> int:
    """convert_gpt2_checkpoint_to_pytorch.py."""
    parser = ArgumentParser(prog="gpt2 legacy convert_gpt2_checkpoint_to_pytorch.py")
    parser.add_argument("--gpt2_checkpoint_path", required=True, help="Path to the TensorFlow checkpoint path.")
    parser.add_argument("--pytorch_dump_folder_path", required=True, help="Path to the output PyTorch model.")
    parser.add_argument(
        "--gpt2_config_file",
        default="",
        help="An optional config json file of the model: hparams.json will do. Without it, it is looked for.",
    )
    asked = parser.parse_args(words)
    settings = Path(asked.gpt2_config_file) if asked.gpt2_config_file else None
    return _convert(asked.gpt2_checkpoint_path, Path(asked.pytorch_dump_folder_path), settings)


def _convert(source: str, output: Path, settings: Path | None) -> int:
    checkpoint = _read(source, settings)
    print(f"Converting TensorFlow checkpoint from {os.path.abspath(checkpoint.origin)}")
    for name, tensor in checkpoint.tensors.items():
        print(f"Loading TF weight {name} with shape {list(tensor.shape)}")
    _require_free(output, [WEIGHTS, CONFIG])
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=output.resolve().parent) as hidden, bars() as report:
        made = Path(hidden, "model")
        convert(checkpoint, made, to="bin", report=report)
        new = [file for file in made.iterdir() if not _is_there(file, output)]
        _require_free(output, [file.name for file in new])
        for file in sorted(new, key=lambda file: file.name == WEIGHTS):  # last: who has them has all
            shutil.move(file, output / file.name)
    print(f"Save PyTorch model to {output / WEIGHTS}")
    print(f"Save configuration file to {output / CONFIG}")
    return 0


def _is_there(file: Path, output: Path) -> bool:
    """Whether the directory has the very same file, such as a vocabulary that somebody renamed for transformers."""
    return (output / file.name).is_file() and cmp(file, output / file.name, shallow=False)


def _require_free(output: Path, names: Sequence[str]) -> None:
    require(not output.exists() or output.is_dir(), f"{output}: is a file; name a directory")
    taken = [name for name in names if (output / name).exists()]
    require(not taken, f"{output}: holds {', '.join(taken)} already; remove that, or name another directory")


def _read(source: str, settings: Path | None) -> Checkpoint:
    """The checkpoint, with the settings of the file where one is named."""
    if settings is None:
        return open_checkpoint(source)
    if not settings.is_file():
        raise ConfigError(f"{settings}: no such file; the settings are optional, or name an hparams.json")
    stored = read_object(settings)
    for old, new in SAME.items():
        if old in stored and new in stored and stored[old] != stored[new]:
            raise ConfigError(f"{settings}: {old} is {stored[old]!r}, {new} is {stored[new]!r}; both name one number")
    wanted, place = huggingface.read_config(settings), Path(source)
    if not openai.sniff(place):
        found = open_checkpoint(source)
        _require_the_same(wanted, found, settings)
        return found
    with TemporaryDirectory() as hparams:  # what the tensors do not tell
        Path(hparams, openai.HPARAMS).write_text(json.dumps({"n_head": wanted.heads}), encoding="utf-8")
        found = openai.read(place, model_dir=Path(hparams))
    _require_the_same(wanted, found, settings)
    if (_home(place) / openai.HPARAMS).is_file():
        _require_the_same(wanted, openai.read(place), settings)
    return replace(found, config=replace(wanted, tied_head=True), tokenizer_files=_vocabulary(place, settings))


def _require_the_same(wanted: ModelConfig, found: Checkpoint, settings: Path) -> None:
    for ours, theirs in KEYS.items():
        asked, is_ = getattr(wanted, ours), getattr(found.config, ours)
        if asked != is_:
            raise WeightMismatch(
                f"{settings}: {theirs} is {asked}, but {is_} in {found.origin}; name the settings of this model"
            )


def _vocabulary(place: Path, settings: Path) -> Mapping[str, bytes]:
    """The tokenizer files beside the weights, else beside the settings."""
    beside = (huggingface.read_tokenizer_files(home) for home in (_home(place), settings.parent))
    return next((files for files in beside if holds_vocabulary(files)), {})


def _home(place: Path) -> Path:
    """The directory that a bundle lies in."""
    return place if place.is_dir() else place.parent
