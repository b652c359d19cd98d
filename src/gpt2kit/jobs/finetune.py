"""Train a model on text into a run, or go on with the run where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2kit.atomic import replace_bytes
from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.toml_file import read_toml, to_toml
from gpt2kit.config.training import TrainingConfig
from gpt2kit.data.batches import Corpus, hold_out
from gpt2kit.data.documents import Document, read_documents
from gpt2kit.data.encode import encode_documents
from gpt2kit.errors import DataError, MissingExtra
from gpt2kit.formats import huggingface
from gpt2kit.generate.select import DeviceName
from gpt2kit.progress import Report, silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run
from gpt2kit.tokenizer.open import open_tokenizer

if TYPE_CHECKING:
    from gpt2kit.train.loop import Trainer


@dataclass(frozen=True)
class RunSettings:
    """What run.toml holds: `gpt2 finetune --config run.toml` goes on with the run."""

    dataset: tuple[str, ...]
    model: str
    run_name: str
    training: TrainingConfig
    device: DeviceName


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
    for package in ("torch", "matplotlib"):
        if not find_spec(package):
            raise MissingExtra("training", "train")
    run, training = Run.named(run_name), training or TrainingConfig()
    documents = list(read_documents(dataset))  # refused before anything is made
    if run.latest() is None:
        open_checkpoint(model)
    with run.locked():
        done = run.latest()
        start = open_checkpoint(model if done is None else f"{run.directory}@{done}")
        learn, validate = _corpora(documents, start, training, report)
        trainer = _trainer(start, training, device, learn, validate, run, report)
        if done is None:
            huggingface.write_surroundings(start, run.directory)
            run.cut_metrics(0)
        else:
            trainer.resume(done)
        if trainer.step < training.steps:
            settings = RunSettings(tuple(map(str, dataset)), str(model), run_name, training, device)
            _write_settings(settings, run, done is not None)
        announce(_plan(start, trainer))
        outcome = trainer.train(stop_asked)
        new_steps = outcome.step - (done or 0)
        if new_steps:
            _draw(run)
    return Finetuned(run.directory, outcome.step, new_steps, outcome.loss, outcome.validation_loss, outcome.interrupted)


def _write_settings(settings: RunSettings, run: Run, goes_on: bool) -> None:
    """Write run.toml; a run that goes on still started from the model it started from."""
    path = run.directory / "run.toml"
    if goes_on and path.exists():
        settings = replace(settings, model=read_toml(path).get("model", settings.model))
    replace_bytes(path, to_toml(settings))


def _plan(start: Checkpoint, trainer: Trainer) -> Plan:
    held_out = 0 if trainer.validate is None else trainer.validate.ids.size
    learn = trainer.learn
    return Plan(
        start.origin,
        start.parameter_count(),
        learn.ids.size,
        held_out,
        learn.window,
        str(trainer.device),
        trainer.step,
    )


def _draw(run: Run) -> None:
    from gpt2kit.train.curve import draw_curve

    draw_curve(run)


def _corpora(
    documents: Sequence[Document], start: Checkpoint, training: TrainingConfig, report: Report
) -> tuple[Corpus, Corpus | None]:
    """What is learnt and what is held out. Windows are as long as the model's, or as the shorter text allows."""
    ids = encode_documents(documents, open_tokenizer(start.tokenizer_files, start.origin), report)
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
    from gpt2kit.generate.torch_engine import usable_device
    from gpt2kit.model.memory import naming_exhaustion
    from gpt2kit.model.weights import to_network
    from gpt2kit.train.loop import Trainer

    with naming_exhaustion("take a smaller model, or close other programs"):
        network = to_network(start.config, start.tensors).to(usable_device(device))
    return Trainer(network, training, learn, validate, run, report)
