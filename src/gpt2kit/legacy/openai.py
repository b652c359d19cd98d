"""The programs of openai/gpt-2: download_model.py and the two that write samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import ModelNotFound
from gpt2kit.hub.catalogue import KNOWN_MODELS, MODELS, KnownModel, find
from gpt2kit.hub.order import place_order
from gpt2kit.jobs.download import carry_out
from gpt2kit.jobs.generate import require_batch_size
from gpt2kit.jobs.load import load
from gpt2kit.jobs.standard_input import expect_utf8, typed_line
from gpt2kit.legacy.bars import bars
from gpt2kit.legacy.classic import converse, print_samples, require_batches, require_room
from gpt2kit.legacy.fire import HELP, flag, parse
from gpt2kit.resolve import known_directory, open_checkpoint


@dataclass(frozen=True)
class Unconditional:
    """Write samples from nothing."""

    model_name: str = flag("124M", "String, which model to use: a directory of MODELS_DIR, a run, or a path")
    seed: int | None = flag(None, "Integer seed for random number generators, fix seed to reproduce results")
    nsamples: int = flag(0, "Number of samples to return, if 0, continues to generate samples indefinitely")
    batch_size: int = flag(1, "Number of samples written at once (only affects speed/memory)")
    length: int | None = flag(None, "Number of tokens in generated text, if None, as many as the window holds")
    temperature: float = flag(1, "Randomness: lower is safer, 0 always takes the likeliest token")
    top_k: int = flag(0, "How many words are considered for each token; 0 is no restriction, 40 is a good value")
    top_p: float = flag(1, "Consider the likeliest words with this total probability; 1 is no restriction")
    models_dir: str = flag("models", "Path to parent folder containing model subfolders")

    @property
    def models(self) -> Path:
        """The directory that `models_dir` spells."""
        return Path(os.path.expanduser(os.path.expandvars(self.models_dir)))

    @property
    def sampling(self) -> SamplingConfig:
        """How the tokens are chosen."""
        return SamplingConfig(
            chain="openai", temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, seed=self.seed
        )


@dataclass(frozen=True)
class Interactive(Unconditional):
    """Interactively run the model."""

    nsamples: int = flag(1, "Number of samples to return total, a multiple of BATCH_SIZE")
    length: int | None = flag(None, "Number of tokens in generated text, if None, half the window")


def generate_unconditional_samples(words: Sequence[str]) -> int:
    """generate_unconditional_samples.py."""
    asked = parse(Unconditional, "gpt2 legacy generate_unconditional_samples.py", words)
    require(asked.nsamples >= 0, f"nsamples must be 0 or more, got {asked.nsamples}")
    require_batch_size(asked.batch_size)
    checkpoint = open_model(asked.model_name, asked.models)
    window = checkpoint.config.window
    stop = StopConfig(max_new_tokens=_length(asked, window, window), ignore_end=True)
    samples = asked.nsamples or None
    slots = asked.batch_size if samples is None else min(asked.batch_size, samples)
    with load(checkpoint, slots=slots) as generator:
        print_samples(generator.pieces(None, samples=samples, sampling=asked.sampling, stop=stop))
    return 0


def interactive_conditional_samples(words: Sequence[str]) -> int:
    """interactive_conditional_samples.py."""
    asked = parse(Interactive, "gpt2 legacy interactive_conditional_samples.py", words)
    require_batches(asked.nsamples, asked.batch_size)
    require_batch_size(asked.batch_size)
    checkpoint = open_model(asked.model_name, asked.models)
    window = checkpoint.config.window
    length = _length(asked, window // 2, window)
    expect_utf8()
    with load(checkpoint, slots=asked.batch_size) as generator:
        converse(generator, typed_line, asked.sampling, StopConfig(), nsamples=asked.nsamples, length=length)
    return 0


def download_model(
    words: Sequence[str], *, catalogue: Sequence[KnownModel] = KNOWN_MODELS, endpoint: str | None = None
) -> int:
    """download_model.py."""
    if len(words) != 1 or words[0].startswith("-"):
        print("You must enter the model name as a parameter, e.g.: download_model.py 124M")
        return 0 if HELP.intersection(words) else 1
    order = place_order(words[0], endpoint=endpoint, catalogue=catalogue)
    with bars() as report:
        got = carry_out(order, report)
    if not got.new:
        print(f"{got.folder}: {got.files} files, all there; nothing fetched")
    return 0


def _length(asked: Unconditional, usual: int, window: int) -> int:
    length = usual if asked.length is None else asked.length
    require(length >= 1, f"length must be 1 or more, got {length}")
    require_room(length, window)
    return length


def place_of(name: str, models: Path = MODELS) -> str | Path:
    """What an old program means by the model `name`: its directory in `models`, else a run or a path.

    Raises:
        ModelNotFound: nothing answers to it.
    """
    place = known_directory(name, models) or name
    try:
        open_checkpoint(place, models=models)
    except ModelNotFound:
        if place != name or not find(name):
            raise
        raise ModelNotFound(
            f"{models / name}: no such model; get it with: gpt2 legacy download_model.py {name}"
        ) from None
    return place


def open_model(name: str, models: Path = MODELS) -> Checkpoint:
    """The model at `place_of(name)`."""
    return open_checkpoint(place_of(name, models), models=models)
