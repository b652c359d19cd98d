"""Train a model on text into a run, or go on with the run where it was."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import DeviceName
from gpt2kit.config.limits import require
from gpt2kit.config.reading import ReadingConfig
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.training import TrainingConfig
from gpt2kit.data.batches import Corpus, hold_out
from gpt2kit.data.encode import encode_to_shards
from gpt2kit.data.shards import Shards, is_shards, open_shards
from gpt2kit.errors import DataError, Gpt2kitError, MissingExtra
from gpt2kit.formats import huggingface
from gpt2kit.formats.registry import recognise
from gpt2kit.generate.generator import Generator
from gpt2kit.jobs.run_settings import (
    SETTINGS,
    RunSettings,
    former_settings,
    tell_changes,
    with_former_settings,
    write_settings,
)
from gpt2kit.jobs.starting_point import Start, starting_point
from gpt2kit.progress import Report, silent
from gpt2kit.runs import ENCODED, RUNS, Run
from gpt2kit.tokenizer.open import open_tokenizer

if TYPE_CHECKING:
    import torch

    from gpt2kit.model.gpt2 import GPT2
    from gpt2kit.train.decide import Decision
    from gpt2kit.train.loop import Outcome, Trainer

SampleWriter = Callable[[Generator, Corpus, int], str | None]
"""Given the model as it is, the text that is learnt and the step: what the model wrote, or None if nothing is due."""


@dataclass(frozen=True)
class Plan:
    """What is about to happen."""

    origin: str
    parameters: int
    tokens: int
    """To learn from."""
    documents: int
    held_out: int
    """Tokens that are not learnt from."""
    window: int
    device: str
    done: int
    """Steps the run has behind it."""
    steps: int
    first_loss: float | None
    """Before the first step, in nats a token, where a decision rests on it."""
    decisions: tuple[Decision, ...]
    """What the settings left open."""
    set_aside: Path | None
    """Where the run's former snapshots went, if it begins again."""


@dataclass(frozen=True)
class Finetuned:
    """Where the run stands afterwards."""

    directory: Path
    step: int
    new_steps: int
    loss: float
    validation_loss: float | None
    interrupted: bool
    stopped_early: bool
    best_step: int | None


def finetune(
    dataset: Sequence[str | Path],
    model: str | Path = "124M",
    *,
    run_name: str = "run1",
    runs: Path = RUNS,
    validation: Sequence[str | Path] = (),
    training: TrainingConfig | None = None,
    reading: ReadingConfig | None = None,
    restore_from: str = "latest",
    device: DeviceName = "auto",
    report: Report = silent,
    announce: Callable[[Plan], None] = lambda plan: None,
    on_event: Callable[[Mapping[str, Any]], None] = lambda event: None,
    write_sample: SampleWriter | None = None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Finetuned:
    """Train `model` on texts into checkpoint/<run_name>, or go on with that run, also one of nshepperd's code.

    Args:
        dataset: anything `encode` takes, encoded or not.
        model: where a new run starts from; a run that exists already goes on from itself.
        run_name: the run's name; its directory can be used as a model at any time.
        runs: the directory of runs.
        validation: texts to measure on, instead of a share of `dataset` that is held out.
        training: how to learn. `steps` counts all steps of the run, so the same call finishes what was interrupted.
        reading: how the texts are read.
        restore_from: "latest"; "best"; a step; "fresh" to begin again from `model`; or a checkpoint to begin again
            from. What a new beginning replaces is kept in a directory beside the run's.
        device: "auto" takes a GPU where torch finds one.
        report: told about every `print_every`-th step.
        announce: told the plan before the first step.
        on_event: told every line of metrics.jsonl as it is written; of kind "sample" where it holds a "text".
        write_sample: writes and keeps the samples; None writes one, to where the old programs put it.
        stop_asked: asked after every step; True saves and ends.

    Raises:
        RunLocked: another process is training this run.
        DiskFull: there was no room for a snapshot; the one before is whole.
        DataError, ConfigError, FormatError, ModelNotFound, MissingExtra: what the names say.
    """
    for package in ("torch", "matplotlib"):
        if not find_spec(package):
            raise MissingExtra("training", "train")
    reading, training = reading or ReadingConfig(), training or TrainingConfig()
    if validation:
        require(not training.validation_share, "texts to validate on and a validation_share are one too many")
        training = replace(training, validation_share=0.0)
    run = Run.named(run_name, runs)
    with run.locked():
        start = starting_point(run, model, restore_from)
        if device != "auto":  # what cannot be is told before a long text is encoded
            _place(device)
        former = former_settings(run) if start.goes_on else None
        asked = with_former_settings(training, former) if former else training
        with _leaving_nothing(run):
            tokens = _tokens(dataset, ENCODED[0], start, run, reading, report)
            measured = _tokens(validation, ENCODED[1], start, run, reading, report) if validation else None
            trainer, plan = _prepare(start, asked, tokens, measured, run, _place(device), report, write_sample)
        if former:
            tell_changes(run, former, trainer.recipe)
        plan = replace(plan, set_aside=_begin(run, start, trainer))
        if not trainer.finished:
            settings = RunSettings(
                dataset=_texts(dataset, tokens),
                validation=_texts(validation, measured),
                model=str(model),
                run_name=run_name,
                training=trainer.recipe,
                reading=reading,
                device=device,
            )
            write_settings(settings, run, start.goes_on)
        announce(plan)
        outcome = _train(trainer, on_event, stop_asked)
        best = run.best()
    return Finetuned(
        directory=run.directory,
        step=outcome.step,
        new_steps=outcome.step - plan.done,
        loss=outcome.loss,
        validation_loss=outcome.validation_loss,
        interrupted=outcome.interrupted,
        stopped_early=outcome.stopped_early,
        best_step=best,
    )


def _begin(run: Run, start: Start, trainer: Trainer) -> Path | None:
    """Make the run ready for the next step. Returns where what it had before went, if it begins again."""
    set_aside = None
    if not start.goes_on and (run.steps() or recognise(run.directory)):
        set_aside = run.set_aside()
    if start.goes_on and not start.of_another_program:
        trainer.resume(start.done)
    else:
        run.cut_metrics(0)  # of a start that was killed before it saved
        huggingface.write_surroundings(start.checkpoint, run.directory)
    return set_aside


@contextmanager
def _leaving_nothing(run: Run) -> Iterator[None]:
    """A run that is refused before it has begun does not leave its encoded text."""
    try:
        yield
    except Gpt2kitError:
        if not (run.directory / SETTINGS).exists():
            for name in ENCODED:
                shutil.rmtree(run.directory / name, ignore_errors=True)
        raise


def _tokens(
    dataset: Sequence[str | Path], name: str, start: Start, run: Run, reading: ReadingConfig, report: Report
) -> Shards:
    """The encoded text: as it lies, if it came encoded, else encoded into the run's directory."""
    checkpoint, directory = start.checkpoint, run.directory / name
    tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
    if len(dataset) == 1 and is_shards(place := Path(dataset[0])):
        shards = open_shards(place)
        if shards.tokenizer_sha256 != tokenizer.sha256:
            raise DataError(
                f"{place}: encoded with another vocabulary ({shards.vocab_size:,} tokens) than that of "
                f"{checkpoint.origin} ({tokenizer.vocab_size:,}); encode the text again: "
                f"gpt2 encode TEXT -o OUT --model {checkpoint.origin}"
            )
        return shards
    before = _amount(open_shards(directory)) if start.done and is_shards(directory) else None
    shards = encode_to_shards(dataset, tokenizer, directory, reading=reading, overwrite=True, report=report)
    if before and before != (now := _amount(shards)):
        warnings.warn(
            f"from step {start.done} on, {run.name} learns from other text: {now}, not {before}", stacklevel=3
        )
    return shards


def _texts(dataset: Sequence[str | Path], tokens: Shards | None) -> tuple[str, ...]:
    """Where the texts can be found again: what came through standard input comes only once."""
    names = tuple(map(str, dataset))
    return (str(tokens.directory),) if tokens and "-" in names else names


def _amount(shards: Shards) -> str:
    return f"{shards.total:,} tokens from {shards.text_bytes:,} bytes"


def _place(device: DeviceName) -> torch.device:
    import torch

    from gpt2kit.generate.torch_engine import usable_device

    return torch.device(usable_device(device))


def _prepare(
    start: Start,
    asked: TrainingConfig,
    tokens: Shards,
    measured: Shards | None,
    run: Run,
    place: torch.device,
    report: Report,
    write_sample: SampleWriter | None,
) -> tuple[Trainer, Plan]:
    """Decide what was left open, and build the trainer."""
    from gpt2kit.model.memory import naming_exhaustion
    from gpt2kit.model.weights import to_network
    from gpt2kit.train.decide import Facts, decide, decide_split, decide_window
    from gpt2kit.train.loop import Trainer, first_loss
    from gpt2kit.train.precision import fastest_precision

    checkpoint = start.checkpoint
    share, decisions = decide_split(asked, tokens.total)
    learnt_spans, held_spans = hold_out(tokens, share)
    window, more = decide_window(asked, checkpoint.config, Corpus(tokens, learnt_spans, 1).total)
    learn, validate = Corpus(tokens, learnt_spans, window), Corpus(tokens, held_spans, window)
    if measured:
        validate = Corpus(measured, np.array([[0, measured.total]]), window)
    with naming_exhaustion("take a smaller model, or close other programs"):
        network = to_network(checkpoint.config, checkpoint.tensors, asked.dropout).to(place)
    loss = None
    if asked.learning_rate is None or (asked.steps is None and asked.epochs is None):
        loss = first_loss(network, learn)
    parameters = checkpoint.parameter_count()
    windows_measured = asked.validation_windows * window or validate.total
    precision, why = fastest_precision(place)
    facts = Facts(
        measured=min(validate.total, windows_measured),
        model=checkpoint.config,
        parameters=parameters,
        first_loss=loss,
        precision=precision,
        precision_reason=why,
    )
    recipe, rest = decide(asked, facts, learn.windows, window, share)
    if asked.steps is None and (start.of_another_program or not asked.epochs):  # what was decided is to come
        recipe = replace(recipe, steps=start.done + recipe.steps)
    trainer = Trainer(
        *(network, recipe, learn, validate if validate.total > 1 else None, run, report),
        sample=_sampling(network, checkpoint, learn, write_sample or _to_where_it_was(run, recipe.sample_tokens)),
    )
    if start.of_another_program:
        behind = f"{run.directory}: has {start.done:,} steps behind it, which steps counts too; ask for more of them"
        require(recipe.steps > start.done, behind)
        trainer.step = start.done
    plan = Plan(
        origin=checkpoint.origin,
        parameters=parameters,
        tokens=learn.total,
        documents=tokens.ends.size,
        held_out=validate.total,
        window=window,
        device=str(place),
        done=start.done,
        steps=recipe.steps,
        first_loss=loss,
        decisions=(*decisions, *more, *rest),
        set_aside=None,
    )
    return trainer, plan


def _sampling(network: GPT2, checkpoint: Checkpoint, learn: Corpus, write: SampleWriter) -> Callable[[int], str | None]:
    """Lets `write` write with the network as it is."""
    from gpt2kit.generate.torch_engine import TorchEngine

    tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
    return lambda step: write(Generator(checkpoint, tokenizer, TorchEngine.around(network, slots=1)), learn, step)


def _to_where_it_was(run: Run, length: int) -> SampleWriter:
    """Writes a sample in the form and place of the old programs."""

    def write(generator: Generator, learn: Corpus, step: int) -> str:
        sampling, stop = SamplingConfig(top_k=40, seed=step), StopConfig(max_new_tokens=length)
        text = generator.generate(sampling=sampling, stop=stop)[0].text
        run.save_sample(step, f"======== SAMPLE 1 ========\n{text}\n")
        return text

    return write


def _train(trainer: Trainer, on_event: Callable[[Mapping[str, Any]], None], stop_asked: Callable[[], bool]) -> Outcome:
    from gpt2kit.train.allocator import keep_freed_memory
    from gpt2kit.train.board import board_if_installed
    from gpt2kit.train.curve import CURVE, draw_curve

    if trainer.device.type == "cpu" and not trainer.recipe.step_in_backward:  # which is for those who want it back
        keep_freed_memory()
    before = trainer.step
    board = None if trainer.finished else board_if_installed(trainer.run.directory, before)

    def tell(event: Mapping[str, Any]) -> None:
        if board:
            board.log(event)
        on_event(event)

    trainer.on_event = tell
    try:
        outcome = trainer.train(stop_asked)
    finally:
        if board:
            board.close()
    if outcome.step > before or not (trainer.run.directory / CURVE).exists():
        draw_curve(trainer.run)
    return outcome
