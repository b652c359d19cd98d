"""gpt2 finetune: train a model on text into a run, or go on with the run where it was."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from gpt2kit.config.engine import DeviceName
from gpt2kit.config.reading import ReadingConfig
from gpt2kit.config.training import TrainingConfig

if TYPE_CHECKING:
    from gpt2kit.jobs.finetune import Finetuned, Plan


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Train a model on text into a run, or go on with the run.

    The run's directory, checkpoint/RUN_NAME, can be used as a model at any time. The same command again goes on where
    the run stopped; Ctrl-C saves first.
    """

    dataset: Annotated[tuple[str, ...], Positional, arg(metavar="TEXT...", help_behavior_hint="")]
    """Whatever `gpt2 encode` takes: files, directories, globs, "-"; or what it wrote."""
    model: Annotated[str, arg(aliases=("--model-name",))] = "124M"
    """What a new run starts from: a known name (124M), a directory, a file, or another run."""
    run_name: str = "run1"
    """The run's name: its directory is checkpoint/RUN_NAME."""
    validation: UseAppendAction[tuple[str, ...]] = ()
    """A text to measure on, instead of a share of TEXT that is held out; may be given several times."""
    restore_from: str = "latest"
    """latest; best; a step, to go back to it; fresh, to begin again from the model; or a checkpoint to begin from."""
    training: OmitArgPrefixes[TrainingConfig] = TrainingConfig()
    reading: OmitArgPrefixes[ReadingConfig] = ReadingConfig()
    device: DeviceName = "auto"
    """auto: a GPU where torch finds one."""
    preset: str | None = None
    """Settings that belong together: from-scratch (a small model that has learnt nothing), lean (less memory),
    nshepperd or gpt-2-simple (to learn as these programs did)."""
    config: Path | None = None
    """A TOML file with any of these options, such as a run's run.toml; it wins over the preset, options win over it."""

    def __call__(self) -> int:
        """Train, drawing progress, and say where the run stands."""
        from gpt2kit.cli.terminal import drawing, tell, tell_saving
        from gpt2kit.jobs.finetune import finetune
        from gpt2kit.jobs.interruptible import Interruptible

        with drawing() as report, Interruptible(report, tell_saving) as interruptible:
            run = finetune(
                self.dataset,
                self.model,
                run_name=self.run_name,
                validation=self.validation,
                training=self.training,
                reading=self.reading,
                restore_from=self.restore_from,
                device=self.device,
                report=interruptible.report,
                announce=lambda plan: tell("\n".join(_told(plan))),
                on_event=lambda event: _tell_sample(event, tell),
                stop_asked=interruptible,
            )
        for line in _result(run):
            print(line)
        return 130 if run.interrupted else 0


def _tell_sample(event: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    if event["event"] == "sample":
        tell(f"======== step {event['step']:,} ========\n{event['text']}")


def _told(plan: Plan) -> Iterator[str]:
    """What is about to happen, line by line."""
    if plan.set_aside:
        yield f"begins again; what the run had is kept in {plan.set_aside}"
    yield f"model    {plan.origin}, {plan.parameters:,} parameters, on {plan.device}"
    documents = "1 document" if plan.documents == 1 else f"{plan.documents:,} documents"
    held_out = f"{plan.held_out:,} held out" if plan.held_out else "none held out"
    yield f"text     {documents}, {plan.tokens:,} tokens to learn from, {held_out}, windows of {plan.window}"
    yield f"steps    {plan.done:,} of {plan.steps:,} done"
    if plan.first_loss is not None:
        yield f"loss     {plan.first_loss:.3f} before the first step"
    for made in plan.decisions:
        value = f"{made.value:,}" if isinstance(made.value, int) else made.value
        yield f"decided  {made.setting.replace('_', '-')} {value}: {made.reason}"


def _result(run: Finetuned) -> Iterator[str]:
    validation = "" if run.validation_loss is None else f", validation loss {run.validation_loss:.3f}"
    best = "" if run.best_step in (None, run.step) else f"; best at step {run.best_step:,} ({run.directory.name}@best)"
    yield f"{run.directory}: step {run.step:,}, loss {run.loss:.3f}{validation}{best}"
    if run.interrupted:
        yield f"to go on: gpt2 finetune --config {shlex.quote(str(run.directory / 'run.toml'))}"
    elif run.stopped_early:
        yield "stopped: the held-out loss has not fallen any more; to train on: --patience 0"
    elif not run.new_steps:
        yield f"nothing to do: {run.step:,} steps are done; ask for more with --steps"
