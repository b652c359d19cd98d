"""gpt-2-simple's command line: gpt_2_simple finetune TEXT, gpt_2_simple generate."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from inspect import signature
from itertools import count
from pathlib import Path

from tqdm import trange

from gpt2kit.errors import ConfigError
from gpt2kit.formats.registry import recognise
from gpt2kit.hub.manifest import is_unfinished
from gpt2kit.legacy.gpt_2_simple import DELIMITER, generate_to_file, load_gpt2, start_tf_sess
from gpt2kit.legacy.gpt_2_simple_files import download_gpt2, find_model
from gpt2kit.legacy.gpt_2_simple_training import finetune

PROGRAM = "gpt_2_simple"
GENERATED = re.compile(r"gpt2_gentext_.*\.txt")


def cmd() -> None:
    """Run what sys.argv says. The command `gpt_2_simple` does it by way of cli/main.py, which says what went wrong."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Run one command line. Raises Gpt2kitError."""
    parser = _parser()
    args = vars(parser.parse_intermixed_args(argv))
    words = [word for word in (args.pop("first word"), args.pop("second word")) if word is not None]
    mode = args.pop("mode") or (words.pop(0) if words else None)
    if mode not in ("finetune", "generate"):
        raise ConfigError(f"Mode must be 'finetune' or 'generate', got {mode!r}")
    dataset = args.pop("dataset") or (words.pop(0) if words else None)
    if words:
        parser.error(f"unrecognized arguments: {' '.join(words)}")
    if mode == "generate":
        cmd_generate(**{name: args[name] for name in signature(cmd_generate).parameters})
        return 0
    if dataset is None:
        raise ConfigError("You need to provide a dataset.")
    args["dataset"] = dataset
    cmd_finetune(**{name: args[name] for name in signature(cmd_finetune).parameters})
    return 0


def cmd_finetune(
    dataset: str,
    run_name: str,
    checkpoint_dir: str,
    model_name: str,
    model_dir: str,
    steps: int | str,
    restore_from: str,
    sample_every: int,
    save_every: int,
    print_every: int,
    optimizer: str,
    overwrite: bool,
    multi_gpu: bool,
) -> None:
    """Train a model, which is fetched if it is not there."""
    place = find_model(model_dir, model_name)
    if place is None or is_unfinished(place) or not recognise(place):
        download_gpt2(model_dir, model_name)
    finetune(
        start_tf_sess(),
        dataset,
        run_name=run_name,
        checkpoint_dir=checkpoint_dir,
        model_name=model_name,
        model_dir=model_dir,
        steps=steps,
        restore_from=restore_from,
        sample_every=sample_every,
        save_every=save_every,
        print_every=print_every,
        optimizer=optimizer,
        overwrite=overwrite,
        multi_gpu=multi_gpu,
    )


def cmd_generate(
    nfiles: int,
    nsamples: int,
    folder: str,
    length: int,
    temperature: float,
    batch_size: int,
    prefix: str | None,
    truncate: str | None,
    include_prefix: bool,
    sample_delim: str,
    run_name: str,
    checkpoint_dir: str,
    top_k: int,
    top_p: float,
    multi_gpu: bool,
) -> None:
    """Write files of texts with a run into a folder, which loses what an earlier call put there."""
    sess = start_tf_sess()
    load_gpt2(sess, run_name=run_name, checkpoint_dir=checkpoint_dir, multi_gpu=multi_gpu)
    place = Path(folder)
    earlier = _earlier_files(place)
    for _ in trange(nfiles):
        generate_to_file(
            sess,
            run_name=run_name,
            checkpoint_dir=checkpoint_dir,
            destination_path=str(_new_file(place)),
            length=length,
            temperature=temperature,
            nsamples=nsamples,
            batch_size=batch_size,
            prefix=prefix,
            truncate=truncate,
            include_prefix=include_prefix,
            sample_delim=sample_delim,
            top_k=top_k,
            top_p=top_p,
        )
        while earlier:  # only now: what cannot be written must not cost what is there
            earlier.pop().unlink()


def _earlier_files(folder: Path) -> list[Path]:
    """What earlier calls wrote into the folder, which is made. Raises ConfigError where it holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file; --folder names the directory that the texts go to")
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(folder.iterdir())
    others = [path.name for path in files if not GENERATED.fullmatch(path.name)]
    if others:
        raise ConfigError(
            f"{folder}: holds more than generated texts, which would be removed: {', '.join(others):.200}; "
            "name another --folder"
        )
    return files


def _new_file(folder: Path) -> Path:
    """Named after the time; the second of one second has a number besides."""
    stem = f"gpt2_gentext_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    names = (f"{stem}{'' if number == 1 else f'_{number}'}.txt" for number in count(1))
    return next(path for name in names if not (path := folder / name).exists())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Easily retrain OpenAI's GPT-2 text-generating model on new texts. "
        "(https://github.com/minimaxir/gpt-2-simple)",
    )

    def option(
        name: str, help: str, default: object = None, type: Callable[[str], object] = str, alone: object = None
    ) -> None:
        """An option that may stand without a value: it is its default then, or `alone`."""
        parser.add_argument(f"--{name}", nargs="?", help=help, default=default, const=alone or default, type=type)

    option("mode", 'Mode for using the CLI (either "finetune" or "generate") [Required]')
    option("run_name", "[finetune/generate] Run number to save/load the model", "run1")
    option("checkpoint_dir", "[finetune] Path of the checkpoint directory", "checkpoint")
    option("model_name", "[finetune] Name of the GPT-2 model to finetune", "124M")
    option("model_dir", "[finetune] Path of directory of the GPT-2 model to finetune", "models")
    option("dataset", "[finetune] Path to the source text.")
    option("steps", "[finetune] Number of steps to train (-1 for infinite)", -1)
    option("restore_from", "[finetune] Whether to load model 'fresh' or from 'latest' checkpoint.", "latest")
    option("sample_every", "[finetune] After how many steps to print sample", 1000000, int)
    option("save_every", "[finetune] After how many steps to save checkpoint", 100, int)
    option("print_every", "[finetune] After how many steps to print progress", 10, int)
    option("optimizer", "[finetune] Optimizer to use for finetuning (adam or sgd)", "adam")
    option("overwrite", "[finetune] Overwrite existing model when continuing training", False, _truth, True)
    option("nfiles", "[generate] How many files to generate.", 1, int)
    option("nsamples", "[generate] How many texts to generate.", 1, int)
    option("folder", "[generate] Folder to save the generated files", "gen")
    option("length", "[generate] Length (tokens) of the generated texts", 1023, int)
    option("temperature", "[generate] Temperature of the generated texts", 0.7, float)
    option("top_k", "[generate] Sample only from top k tokens", 0, int)
    option("top_p", "[generate] Sample from top p prob (overrides top_k if nonzero)", 0.0, float)
    option("batch_size", "[generate] Batch size for generation (increase for GPUs)", 1, int)
    option("prefix", "[generate] Prefix for generated texts")
    option("truncate", "[generate] Truncation for generated texts")
    option("include_prefix", "[generate] Include prefix when truncating.", True, _truth)
    option("sample_delim", "[generate] Delimiter between each generated sample.", DELIMITER)
    option("multi_gpu", "[generate/finetune] Attempt to allocate multiple GPUs for running.", True, _truth)
    parser.add_argument("first word", nargs="?", metavar="mode")
    parser.add_argument("second word", nargs="?", metavar="dataset")
    return parser


def _truth(word: str) -> bool:
    return word.lower() == "true"
