"""Train a model on text into a run, or go on with the run where it was."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2kit.atomic import replace_bytes
from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.reading import ReadingConfig
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.toml_file import from_table, read_toml, to_toml
from gpt2kit.config.training import TrainingConfig
from gpt2kit.data.batches import Corpus, hold_out
from gpt2kit.data.encode import encode_to_shards
from gpt2kit.data.shards import Shards, is_shards, open_shards
from gpt2kit.errors import ConfigError, DataError, Gpt2kitError, MissingExtra, ModelNotFound
from gpt2kit.formats import huggingface
from gpt2kit.formats.registry import recognise
from gpt2kit.generate.generator import Generator
from gpt2kit.generate.select import DeviceName
from gpt2kit.progress import Report, silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run
from gpt2kit.tokenizer.open import open_tokenizer

if TYPE_CHECKING:
    import torch

    from gpt2kit.model.gpt2 import GPT2
    from gpt2kit.train.decide import Decision
    from gpt2kit.train.loop import Outcome, Trainer

SETTINGS = "run.toml"
TOKENS = "tokens"
# A run that goes on with another value of these is told so.
HOW_IT_LEARNS = (
    *("batch_size", "window", "optimizer", "learning_rate", "muon_learning_rate", "schedule", "final_rate"),
    *("warmup_steps", "weight_decay", "beta2", "clip_norm", "dropout", "precision", "validation_share", "seed"),
)


@dataclass(frozen=True)
class RunSettings:
    """What run.toml holds: `gpt2 finetune --config run.toml` goes on with the run."""

    dataset: tuple[str, ...]
    model: str
    run_name: str
    training: TrainingConfig
    reading: ReadingConfig
    device: DeviceName


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


@dataclass(frozen=True)
class _Start:
    """What a run goes on from."""

    checkpoint: Checkpoint
    done: int | None
    """Steps behind it; None begins anew."""


def finetune(
    dataset: Sequence[str | Path],
    model: str | Path = "124M",
    *,
    run_name: str = "run1",
    training: TrainingConfig | None = None,
    reading: ReadingConfig | None = None,
    restore_from: str = "latest",
    device: DeviceName = "auto",
    report: Report = silent,
    announce: Callable[[Plan], None] = lambda plan: None,
    on_sample: Callable[[int, str], None] = lambda step, text: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Finetuned:
    """Train `model` on texts into checkpoint/<run_name>, or go on with that run.

    Args:
        dataset: anything `encode` takes, encoded or not.
        model: where a new run starts from; a run that exists already goes on from itself.
        run_name: the run's name; its directory can be used as a model at any time.
        training: how to learn. `steps` counts all steps of the run, so the same call finishes what was interrupted.
        reading: how the texts are read.
        restore_from: "latest"; "best"; a step; "fresh" to begin again from `model`; or a checkpoint to begin again
            from. What a new beginning replaces is kept in a directory beside the run's.
        device: "auto" takes a GPU where torch finds one.
        report: told about every `print_every`-th step.
        announce: told the plan before the first step.
        on_sample: told every sample: step and text.
        stop_asked: asked after every step; True saves and ends.

    Raises:
        RunLocked: another process is training this run.
        DiskFull: there was no room for a snapshot; the one before is whole.
        DataError, ConfigError, FormatError, ModelNotFound, MissingExtra: what the names say.
    """
    for package in ("torch", "matplotlib"):
        if not find_spec(package):
            raise MissingExtra("training", "train")
    reading = reading or ReadingConfig()
    run = Run.named(run_name)
    with run.locked():
        start = _starting_point(run, model, restore_from)
        if device != "auto":  # what cannot be is told before a long text is encoded
            _place(device)
        asked = _with_former_settings(training or TrainingConfig(), run, start)
        with _leaving_nothing(run):
            tokens = _tokens(dataset, start, run, reading, report)
            trainer, plan = _prepare(start, asked, tokens, run, _place(device), report, on_sample)
        if start.done is None:
            plan = replace(plan, set_aside=run.set_aside())
            huggingface.write_surroundings(start.checkpoint, run.directory)
            run.cut_metrics(0)
        else:
            trainer.resume(start.done)
        if not trainer.finished:
            # What came through standard input comes only once.
            texts = (str(tokens.directory),) if "-" in map(str, dataset) else tuple(map(str, dataset))
            settings = RunSettings(texts, str(model), run_name, trainer.recipe, reading, device)
            _write_settings(settings, run, start.done is not None)
        announce(plan)
        outcome = _train(trainer, stop_asked)
        best = run.best()
    new_steps = outcome.step - plan.done
    return Finetuned(
        *(run.directory, outcome.step, new_steps, outcome.loss, outcome.validation_loss, outcome.interrupted),
        *(outcome.stopped_early, best),
    )


def _starting_point(run: Run, model: str | Path, restore_from: str) -> _Start:
    if restore_from == "latest":
        step, damage = run.newest_sound()
        if damage and step is None:
            raise ModelNotFound(f"{damage[0]}; no older step is left; to begin again: --restore-from fresh")
        for problem in damage:
            warnings.warn(f"{problem}; going on from step {step}", stacklevel=3)
        if step is None:
            _refuse_old_run(run)
            return _Start(open_checkpoint(model), None)
    elif restore_from == "best":
        step = run.best()
        if step is None:
            raise ModelNotFound(f"{run.directory}: has no best step, for nothing was measured; steps: {run.steps()}")
    elif restore_from.isascii() and restore_from.isdecimal():
        step = int(restore_from)
    else:
        return _Start(open_checkpoint(model if restore_from == "fresh" else restore_from), None)
    run.check(step)
    return _Start(open_checkpoint(f"{run.directory}@{step}"), step)


def _refuse_old_run(run: Run) -> None:
    """What another program has trained there is not passed over, nor mixed with."""
    if recognise(run.directory) and not (run.directory / SETTINGS).exists():
        raise ConfigError(
            f"{run.directory}: a run of another program; start from it in a new one: --model {run.directory} "
            "--run-name ANOTHER"
        )


@contextmanager
def _leaving_nothing(run: Run) -> Iterator[None]:
    """A run that is refused before it has begun does not leave its encoded text."""
    try:
        yield
    except Gpt2kitError:
        if not (run.directory / SETTINGS).exists():
            shutil.rmtree(run.directory / TOKENS, ignore_errors=True)
        raise


def _tokens(dataset: Sequence[str | Path], start: _Start, run: Run, reading: ReadingConfig, report: Report) -> Shards:
    """The encoded text: as it lies, if it came encoded, else encoded into the run's directory."""
    checkpoint, directory = start.checkpoint, run.directory / TOKENS
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


def _amount(shards: Shards) -> str:
    return f"{shards.total:,} tokens from {shards.text_bytes:,} bytes"


def _with_former_settings(asked: TrainingConfig, run: Run, start: _Start) -> TrainingConfig:
    """A run that goes on keeps what was decided when it began, where nothing else is asked now."""
    path = run.directory / SETTINGS
    if start.done is None or not path.exists():
        return asked
    former = from_table(TrainingConfig, read_toml(path).get("training", {}), str(path), None)
    names = [field.name for field in fields(asked) if getattr(asked, field.name) in (None, "auto")]
    kept = {name: getattr(former, name) for name in names if not (name == "steps" and asked.epochs)}
    asked = replace(asked, **kept)
    changed = [name for name in HOW_IT_LEARNS if getattr(asked, name) != getattr(former, name)]
    if changed:
        differences = ", ".join(f"{name} {getattr(asked, name)} (was {getattr(former, name)})" for name in changed)
        warnings.warn(f"{run.name} goes on with {differences}; to keep all as it was: --config {path}", stacklevel=3)
    return asked


def _place(device: DeviceName) -> torch.device:
    import torch

    from gpt2kit.generate.torch_engine import usable_device

    return torch.device(usable_device(device))


def _prepare(
    start: _Start,
    asked: TrainingConfig,
    tokens: Shards,
    run: Run,
    place: torch.device,
    report: Report,
    on_sample: Callable[[int, str], None],
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
    with naming_exhaustion("take a smaller model, or close other programs"):
        network = to_network(checkpoint.config, checkpoint.tensors, asked.dropout).to(place)
    loss = None
    if asked.learning_rate is None or (asked.steps is None and asked.epochs is None):
        loss = first_loss(network, learn)
    parameters = checkpoint.parameter_count()
    facts = Facts(tokens.total, checkpoint.config, parameters, loss, *fastest_precision(place))
    recipe, rest = decide(asked, facts, learn.windows, window, share)
    trainer = Trainer(
        *(network, recipe, learn, validate if validate.total > 1 else None, run, report),
        sample=_sampling(network, start.checkpoint, recipe.sample_tokens, run, on_sample),
    )
    plan = Plan(
        *(checkpoint.origin, parameters, learn.total, tokens.ends.size, validate.total, window, str(place)),
        *(start.done or 0, recipe.steps, loss, (*decisions, *more, *rest), None),
    )
    return trainer, plan


def _sampling(
    network: GPT2, checkpoint: Checkpoint, length: int, run: Run, on_sample: Callable[[int, str], None]
) -> Callable[[int], str]:
    """Writes a sample with the network as it is, in the form and place of the old tools."""
    from gpt2kit.generate.torch_engine import TorchEngine

    tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)

    def sample(step: int) -> str:
        generator = Generator(checkpoint, tokenizer, TorchEngine.around(network, slots=1))
        sampling, stop = SamplingConfig(top_k=40, seed=step), StopConfig(max_new_tokens=length)
        text = generator.generate(sampling=sampling, stop=stop)[0].text
        run.save_sample(step, f"======== SAMPLE 1 ========\n{text}\n")
        on_sample(step, text)
        return text

    return sample


def _train(trainer: Trainer, stop_asked: Callable[[], bool]) -> Outcome:
    from gpt2kit.train.allocator import keep_freed_memory
    from gpt2kit.train.board import board_if_installed
    from gpt2kit.train.curve import CURVE, draw_curve

    if trainer.device.type == "cpu" and not trainer.recipe.step_in_backward:  # which is for those who want it back
        keep_freed_memory()
    before = trainer.step
    if not trainer.finished:
        trainer.journal = board_if_installed(trainer.run.directory, before)
    try:
        outcome = trainer.train(stop_asked)
    finally:
        if trainer.journal:
            trainer.journal.close()
    if outcome.step > before or not (trainer.run.directory / CURVE).exists():
        draw_curve(trainer.run)
    return outcome


def _write_settings(settings: RunSettings, run: Run, goes_on: bool) -> None:
    """Write run.toml; a run that goes on still started from the model it started from."""
    path = run.directory / SETTINGS
    if goes_on and path.exists():
        settings = replace(settings, model=read_toml(path).get("model", settings.model))
    replace_bytes(path, to_toml(settings))
