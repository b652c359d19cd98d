"""gpt2 finetune: train a model on text into a run, or go on with the run where it was."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from gpt2kit.config.training import TrainingConfig
from gpt2kit.generate.select import DeviceName


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Train a model on text into a run, or go on with the run.

    The run's directory, checkpoint/RUN_NAME, can be used as a model at any time. The same command again goes on where
    the run stopped; Ctrl-C saves first.
    """

    dataset: Annotated[tuple[str, ...], Positional, arg(metavar="TEXT...", help_behavior_hint="")]
    """Text files (.txt, .md), directories or globs."""
    model: Annotated[str, arg(aliases=("--model-name",))] = "124M"
    """What a new run starts from: a known name (124M), a directory, a file, or another run."""
    run_name: str = "run1"
    """The run's name: its directory is checkpoint/RUN_NAME."""
    training: OmitArgPrefixes[TrainingConfig] = TrainingConfig()
    device: DeviceName = "auto"
    """auto: a GPU where torch finds one."""
    config: Path | None = None
    """A TOML file with any of these options, such as a run's run.toml; options on the command line win."""

    def __call__(self) -> int:
        """Train, drawing progress, and say where the run stands."""
        from gpt2kit.cli.terminal import Interruptible, drawing
        from gpt2kit.jobs.finetune import Plan, finetune

        def announce(plan: Plan) -> None:
            held_out = f"{plan.held_out:,} held out" if plan.held_out else "none held out"
            print(f"model    {plan.origin}, {plan.parameters:,} parameters, on {plan.device}", file=sys.stderr)
            print(
                f"text     {plan.tokens:,} tokens to learn from, {held_out}, windows of {plan.window}", file=sys.stderr
            )
            print(f"steps    {plan.done:,} of {self.training.steps:,} done", file=sys.stderr)

        with drawing() as report, Interruptible(report) as interruptible:
            run = finetune(
                self.dataset,
                self.model,
                run_name=self.run_name,
                training=self.training,
                device=self.device,
                report=interruptible.report,
                announce=announce,
                stop_asked=interruptible,
            )
        validation = "" if run.validation_loss is None else f", validation loss {run.validation_loss:.3f}"
        print(f"{run.directory}: step {run.step:,}, loss {run.loss:.3f}{validation}")
        if run.interrupted:
            print(f"to go on: gpt2 finetune --config {run.directory / 'run.toml'}")
            return 130
        if not run.new_steps:
            asked = f"{self.training.steps:,} were asked"
            print(f"nothing to do: {run.step:,} steps are done, {asked}; ask for more with --steps")
        return 0
