"""Train a model on text into a run, or go on with the run where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2kit.atomic import replace_bytes
from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.toml_file import to_toml
from gpt2kit.config.training import TrainingConfig
from gpt2kit.data.batches import Corpus, hold_out
from gpt2kit.data.documents import read_documents
from gpt2kit.data.encode import encode_documents
from gpt2kit.errors import DataError, MissingExtra
from gpt2kit.formats import huggingface
from gpt2kit.generate.select import DeviceName
from gpt2kit.progress import Report, silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from gpt2kit.train.loop import Trainer


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What run.toml holds: `gpt2 finetune --config run.toml` does the same again."""

    dataset: tuple[str, ...]
    model: str
    run_name: str
    training: TrainingConfig


@dataclass(frozen=True)
class Plan:
    """What is about to happen."""

    origin: str
    parameters: int
    tokens: int
    held_out: int
    window: int
    device: str
    done: int
    """Steps the run has behind it."""


@dataclass(frozen=True)
class Finetuned:
    """Where the run stands afterwards."""

    directory: Path
    step: int
    new_steps: int
    loss: float
    validation_loss: float | None
    interrupted: bool


def finetune(
    dataset: Sequence[str | Path],
    model: str | Path = "124M",
    *,
    run_name: str = "run1",
    training: TrainingConfig | None = None,
    device: DeviceName = "auto",
    report: Report = silent,
    announce: Callable[[Plan], None] = lambda plan: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Finetuned:
    """Train `model` on texts into checkpoint/<run_name>, or go on with that run from its newest snapshot.

    Args:
        dataset: text files, directories or globs.
        model: where a new run starts from; a run that exists already goes on from itself.
        run_name: the run's name; its directory can be used as a model at any time.
        training: how to learn. `steps` counts all steps of the run, so the same call finishes what was interrupted.
        device: "auto" takes a GPU where torch finds one.
        report: told about every `print_every`-th step.
        announce: told the plan before the first step.
        stop_asked: asked after every step; True saves and ends.

    Raises:
        RunLocked: another process is training this run.
        DataError, ConfigError, FormatError, ModelNotFound, MissingExtra: what the names say.
    """
    training = training or TrainingConfig()
    run = Run.named(run_name)
    with run.locked():
        done = run.latest()
        start = open_checkpoint(model if done is None else f"{run.directory}@{done}")
        learn, validate = _corpora(dataset, start, training, report)
        if done is None:
            huggingface.write_surroundings(start, run.directory)
        settings = RunSettings(dataset=tuple(map(str, dataset)), model=str(model), run_name=run_name, training=training)
        replace_bytes(run.directory / "run.toml", to_toml(settings))
        trainer = _trainer(start, training, device, learn, validate, run, report)
        if done is None:
            run.cut_metrics(0)
        else:
            trainer.resume(done)
        held_out = 0 if validate is None else validate.ids.size
        announce(
            Plan(
                start.origin,
                start.parameter_count(),
                learn.ids.size,
                held_out,
                learn.window,
                str(trainer.device),
                done or 0,
            )
        )
        outcome = trainer.train(stop_asked)
        if outcome.step > (done or 0):
            from gpt2kit.train.curve import draw_curve

            draw_curve(run)
    return Finetuned(
        run.directory,
        outcome.step,
        outcome.step - (done or 0),
        outcome.loss,
        outcome.validation_loss,
        outcome.interrupted,
    )


def _corpora(
    dataset: Sequence[str | Path], start: Checkpoint, training: TrainingConfig, report: Report
) -> tuple[Corpus, Corpus | None]:
    """What is learnt and what is held out. Windows are as long as the model's, or as the shorter text allows."""
    tokenizer = ByteLevelBPE(read_vocabulary(start.tokenizer_files, start.origin))
    ids = encode_documents(read_documents(dataset), tokenizer, report)
    learnt, held_out = hold_out(ids, training.validation_share)
    window = min(training.window or start.config.window, start.config.window, learnt.size - 1)
    if window < 1:
        raise DataError(f"the text has only {ids.size} tokens; a model learns from at least 2")
    validate = Corpus(held_out, min(window, held_out.size - 1)) if held_out.size > 1 else None
    return Corpus(learnt, window), validate


def _trainer(
    start: Checkpoint,
    training: TrainingConfig,
    device: DeviceName,
    learn: Corpus,
    validate: Corpus | None,
    run: Run,
    report: Report,
) -> Trainer:
    try:
        from gpt2kit.generate.torch_engine import usable_device
        from gpt2kit.model.memory import naming_exhaustion
        from gpt2kit.model.weights import to_network
        from gpt2kit.train.loop import Trainer
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("training", "train") from None
    with naming_exhaustion("take a smaller model, or close other programs"):
        network = to_network(start.config, start.tensors).to(usable_device(device))
    return Trainer(network, training, learn, validate, run, report)
