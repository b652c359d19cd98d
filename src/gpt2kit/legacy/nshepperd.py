"""The programs of nshepperd/gpt-2: encode.py and train.py."""

from __future__ import annotations

import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.config.training import ENDLESS, PRESETS, TrainingConfig
from gpt2kit.formats import huggingface
from gpt2kit.hub.catalogue import KNOWN_MODELS, MODELS, find
from gpt2kit.jobs.encode import encode as encode_texts
from gpt2kit.jobs.finetune import finetune
from gpt2kit.jobs.interruptible import Interruptible
from gpt2kit.legacy.bars import bars
from gpt2kit.legacy.classic import require_room
from gpt2kit.legacy.old_texts import npz_name, old_inputs, old_reading
from gpt2kit.legacy.old_training import OPTIMIZERS, OldSamples, TrainingLines, going_on_from, old_run, say
from gpt2kit.legacy.openai import place_of
from gpt2kit.progress import Progress, Report
from gpt2kit.resolve import known_directory, open_checkpoint
from gpt2kit.runs import Run
from gpt2kit.tokenizer.open import holds_tokenizer

LARGE = "345M"  # the one name at which train.py saved memory unasked


def encode(words: Sequence[str]) -> int:
    """encode.py."""
    asked = _encode_parser().parse_args(words)
    output = npz_name(asked.out_npz)
    vocabulary = _vocabulary(asked.model_name)
    print("Reading files", flush=True)
    with bars() as draw:
        report = _saying_when("pack", f"Writing {output}", draw)
        reading = old_reading(asked.combine, encoding=asked.encoding)
        inputs = old_inputs(asked.in_text)
        encode_texts(inputs, output, model=vocabulary, reading=reading, overwrite=True, report=report)
    return 0


def train(words: Sequence[str], *, last_step: int = ENDLESS) -> int:
    """train.py, which has no end but Ctrl-C."""
    asked = _train_parser().parse_args(words)
    training, reading = _training(asked, last_step), old_reading(asked.combine, encoding=asked.encoding)
    run = old_run("checkpoint", asked.run_name)
    model = _model(asked, run)
    lines = TrainingLines(run, print_every=1)

    with bars() as draw, Interruptible(_both(lines.report, draw), lambda: say("interrupted")) as stop_asked:
        finetune(
            old_inputs(asked.dataset),
            model,
            run_name=run.name,
            runs=run.directory.parent,
            validation=old_inputs(asked.val_dataset or asked.dataset) if asked.val_every else [],
            training=training,
            reading=reading,
            restore_from=asked.restore_from,
            report=stop_asked.report,
            announce=lines.announce,
            on_event=lines.on_event,
            write_sample=_samples(asked, run, stop_asked),
            stop_asked=stop_asked,
        )
    return 0


def _training(asked: Namespace, last_step: int) -> TrainingConfig:
    optimizer = OPTIMIZERS.get(asked.optimizer)
    require(optimizer is not None, f"Bad optimizer: {asked.optimizer}; there are {' and '.join(OPTIMIZERS)}")
    parts, large = max(1, asked.accumulate_gradients), asked.model_name == LARGE
    changes = {
        "steps": last_step,
        "batch_size": asked.batch_size * parts,
        "accumulate": parts,
        "learning_rate": asked.learning_rate,
        "optimizer": optimizer,
        "noise": asked.noise,
        "recompute": asked.memory_saving_gradients or large,
        "only_train_transformer_layers": asked.only_train_transformer_layers or (large and asked.optimizer == "adam"),
        "save_every": asked.save_every,
        "sample_every": asked.sample_every,
    }
    if asked.val_every:
        for name in ("val_batch_size", "val_batch_count"):
            require(getattr(asked, name) >= 1, f"{name} must be 1 or more, got {getattr(asked, name)}")
        changes["validate_every"], changes["validate_first"] = asked.val_every, True
        changes["validation_windows"] = asked.val_batch_size * asked.val_batch_count
    return TrainingConfig(**{**PRESETS["nshepperd"], **changes})


def _model(asked: Namespace, run: Run) -> str | Path:
    """What a new run starts from; one that goes on has all it needs."""
    former = going_on_from(run, asked.restore_from)
    model = asked.model_name if former else place_of(asked.model_name)
    require_room(asked.sample_length, (former or open_checkpoint(model)).config.window)
    return model


def _samples(asked: Namespace, run: Run, stop_asked: Interruptible) -> OldSamples:
    top_k = 0 if asked.top_p > 0 else asked.top_k  # top_p came first
    return OldSamples(
        run,
        number=asked.sample_num,
        length=asked.sample_length,
        sampling=SamplingConfig(chain="nshepperd", top_k=top_k, top_p=asked.top_p),
        every=asked.sample_every,
        last=ENDLESS,
        ahead=0,
        says="Generating samples...",
        stop_asked=stop_asked,
    )


def _vocabulary(name: str) -> str | Path:
    """Where the vocabulary of a model is: where that one is missing, any other of OpenAI's has the same."""
    if place := known_directory(name):
        return place
    known = find(name)
    if not (known and known.files):
        return place_of(name)
    sizes = (known_directory(size.name) for size in KNOWN_MODELS if size.files)
    for place in sizes:
        if place and holds_tokenizer(huggingface.read_tokenizer_files(place)):
            print(f"{MODELS / name} is not there; all sizes have one vocabulary, taken from {place}", file=sys.stderr)
            return place
    return place_of(name)


def _both(first: Report, second: Report) -> Report:
    def report(progress: Progress) -> None:
        first(progress)
        second(progress)

    return report


def _saying_when(task: str, words: str, then: Report) -> Report:
    """`then`, and `words` on the console when `task` begins."""
    begun = False

    def report(progress: Progress) -> None:
        nonlocal begun
        if progress.task == task and not begun:
            begun = True
            print(words, flush=True)
        then(progress)

    return report


def _encode_parser() -> ArgumentParser:
    parser = _parser("encode.py", "Pre-encode text files into tokenized training set.")
    _say_how_texts_are_read(parser, "Concatenate files with <|endoftext|> separator into chunks of this minimum size")
    parser.add_argument("in_text", metavar="PATH", help="Input file, directory, or glob pattern (utf-8 text).")
    parser.add_argument("out_npz", metavar="OUT.npz", help="Output file path")
    return parser


def _train_parser() -> ArgumentParser:
    parser = _parser("train.py", "Fine-tune GPT-2 on your custom dataset.")
    add = parser.add_argument
    dataset = "Input file, directory, or glob pattern (utf-8 text, or preencoded .npz files)."
    add("--dataset", metavar="PATH", required=True, help=dataset)
    combine = "Concatenate input files with <|endoftext|> separator into chunks of this minimum size"
    _say_how_texts_are_read(parser, combine)
    add("--batch_size", metavar="SIZE", type=int, default=1, help="Batch size")
    add("--learning_rate", metavar="LR", type=float, default=0.00002, help="Learning rate for Adam")
    accumulate = "Accumulate gradients across N minibatches."
    add("--accumulate_gradients", metavar="N", type=int, default=1, help=accumulate)
    add("--memory_saving_gradients", action="store_true", help="Use gradient checkpointing to reduce vram usage.")
    add("--only_train_transformer_layers", action="store_true", help="Restrict training to the transformer blocks.")
    add("--optimizer", default="adam", help="Optimizer. <adam|sgd>.")
    add("--noise", type=float, default=0.0, help="Add noise to input training data to regularize against typos.")
    add("--top_k", type=int, default=40, help="K for top-k sampling.")
    add("--top_p", type=float, default=0.0, help="P for top-p sampling. Overrides top_k if set > 0.")
    add("--restore_from", default="latest", help='Either "latest", "fresh", or a path to a checkpoint file')
    add("--run_name", default="run1", help="Run id. Name of subdirectory in checkpoint/ and samples/")
    add("--sample_every", metavar="N", type=int, default=100, help="Generate samples every N steps")
    add("--sample_length", metavar="TOKENS", type=int, default=1023, help="Sample this many tokens")
    add("--sample_num", metavar="N", type=int, default=1, help="Generate this many samples")
    add("--save_every", metavar="N", type=int, default=1000, help="Write a checkpoint every N steps")
    add("--val_dataset", metavar="PATH", help="Dataset for validation loss, defaults to --dataset.")
    add("--val_batch_size", metavar="SIZE", type=int, default=2, help="Batch size for validation.")
    add("--val_batch_count", metavar="N", type=int, default=40, help="Number of batches for validation.")
    add("--val_every", metavar="STEPS", type=int, default=0, help="Calculate validation loss every STEPS steps.")
    return parser


def _parser(program: str, description: str) -> ArgumentParser:
    return ArgumentParser(
        prog=f"gpt2 legacy {program}", description=description, formatter_class=ArgumentDefaultsHelpFormatter
    )


def _say_how_texts_are_read(parser: ArgumentParser, combine: str) -> None:
    parser.add_argument("--model_name", metavar="MODEL", default="117M", help="Pretrained model name")
    parser.add_argument("--combine", metavar="CHARS", type=int, default=50000, help=combine)
    parser.add_argument("--encoding", default="utf-8", help="Set the encoding for reading and writing files.")
