"""The program of imcaspar/gpt2-ml that continues what is typed: scripts/demo.py."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.formats import gpt2_ml
from gpt2kit.generate.generator import Generator
from gpt2kit.jobs.load import load
from gpt2kit.jobs.standard_input import expect_utf8, typed_line
from gpt2kit.resolve import open_checkpoint

PROGRAM = "gpt2 legacy demo.py"
CONFIG = "configs/mega.json"
COLUMNS = 70
FLAGS: dict[str, tuple[str | int | float, str]] = {
    "config_fn": (CONFIG, "Configuration JSON for the model; where the default is missing, what lies beside the model"),
    "ckpt_fn": ("../models/mega/model.ckpt", "The model: what the names of its files begin with, or its directory"),
    "top_p": (0.95, "Consider the likeliest words with this total probability; 1 is no restriction"),
    "min_len": (1024, "Tokens, those of the input included, before which no text ends"),
    "eos_token": (102, "Token id that ends a text: 102 is [SEP], 511 the full stop of bert-base-chinese-vocab.txt"),
    "samples": (5, "How many texts an input"),
    "batch_size": (1, "Only the first of a batch is printed, so that more change nothing"),
}
UNUSED = ("max_batch_size", "metadata_fn", "out_fn", "input", "target", "num_folds", "fold")


def demo(words: Sequence[str]) -> int:
    """scripts/demo.py. An empty line ends it, and so does the end of the input."""
    parser = ArgumentParser(PROGRAM, allow_abbrev=False, description="Continue what is typed, with a GPT2-ML.")
    for name, (default, meaning) in FLAGS.items():
        parser.add_argument(f"-{name}", f"--{name}", type=type(default), default=default, help=f"{meaning} ({default})")
    for name in UNUSED:
        parser.add_argument(f"-{name}", f"--{name}", help="Of no effect, as it was")
    asked = parser.parse_args(words)
    require(asked.samples >= 1, f"samples must be 1 or more, got {asked.samples}")
    require(asked.batch_size >= 1, f"batch_size must be 1 or more, got {asked.batch_size}")
    sampling = SamplingConfig(chain="gpt2-ml", top_p=asked.top_p)
    checkpoint = _opened(asked.ckpt_fn, Path(asked.config_fn))
    rows = checkpoint.config.vocab_size
    require(
        0 <= asked.eos_token < rows, f"eos_token must be an id of the model, 0 to {rows - 1}, got {asked.eos_token}"
    )
    expect_utf8()
    with load(checkpoint, slots=1) as generator:
        print("\U0001f37aModel loaded. \nInput something please:\u2b07\ufe0f")
        while text := _typed():
            for number in range(asked.samples):
                print("Sample,", number + 1, " of ", asked.samples)
                written = _continued(generator, text, number, sampling, asked.min_len, asked.eos_token)
                print("\n".join(re.findall(f".{{1,{COLUMNS}}}", written)), flush=True)
            print("Next try:\u2b07\ufe0f")
    return 0


def _opened(model: str, settings: Path) -> Checkpoint:
    place = Path(model)
    if gpt2_ml.sniff(place) and (settings.is_file() or settings != Path(CONFIG)):
        return gpt2_ml.read(place, settings=settings)
    return open_checkpoint(model)


def _typed() -> str:
    try:
        return typed_line("")
    except EOFError:
        return ""


def _continued(
    generator: Generator, text: str, number: int, sampling: SamplingConfig, min_len: int, end_id: int
) -> str:
    """What was typed, as its tokens say it, and how the model went on; the end is part of it.

    As there a text fills the window and one token more, unless its end comes behind `min_len` tokens.
    """
    tokenizer, window = generator.tokenizer, generator.checkpoint.config.window
    typed = tokenizer.encode(text)
    stop = StopConfig(
        max_new_tokens=max(window + 1 - len(typed), 1),
        min_new_tokens=max(min_len - len(typed), 0),
        stop_ids=(end_id,),
        ignore_end=True,
        overflow="stop",
    )
    *_, last = generator.pieces(text, first_sample=number, sampling=sampling, stop=stop)
    assert last.completion, "the last piece has it"
    end = [end_id] if last.completion.reason == "stop" else []
    return tokenizer.decode([*typed, *last.completion.ids, *end])
