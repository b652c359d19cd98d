"""What a run goes on from: a step of its own, what another program trained there, or a model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.errors import ConfigError, ModelNotFound
from gpt2kit.formats.registry import recognise
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run


@dataclass(frozen=True)
class Start:
    """What a run goes on from."""

    checkpoint: Checkpoint
    done: int = 0
    """Steps behind it."""
    goes_on: bool = False
    """Whether the run does; else it begins anew."""
    of_another_program: bool = False
    """Whether only the weights of these steps are left, for another program did them."""


def starting_point(run: Run, model: str | Path, restore_from: str) -> Start:
    """Where `finetune` begins: "latest", "best", a step, "fresh" for `model`, or a checkpoint. Torn steps are told."""
    if restore_from == "latest":
        step, damage = run.newest_sound()
        if damage and step is None:
            raise ModelNotFound(f"{damage[0]}; no older step is left; to begin again: --restore-from fresh")
        for problem in damage:
            warnings.warn(f"{problem}; going on from step {step}", stacklevel=3)
        if step is None:
            return _of_another_program(run) or Start(open_checkpoint(model))
    elif restore_from == "best":
        step = run.best()
        if step is None:
            raise ModelNotFound(f"{run.directory}: has no best step, for nothing was measured; steps: {run.steps()}")
    elif restore_from.isascii() and restore_from.isdecimal():
        step = int(restore_from)
    else:
        return Start(open_checkpoint(model if restore_from == "fresh" else restore_from))
    if not run.steps() and (former := _of_another_program(run, step)):
        return former
    run.check(step)
    return Start(open_checkpoint(f"{run.directory}@{step}"), step, goes_on=True)


def _of_another_program(run: Run, step: int | None = None) -> Start | None:
    """What nshepperd's code or gpt-2-simple has trained there, to its newest step or to this one."""
    format = recognise(run.directory)
    if format is None:
        return None
    if not format.steps:  # our model.safetensors would take the place of theirs
        raise ConfigError(
            f"{run.directory}: holds a model already; start from it in a new run: --model {run.directory} "
            "--run-name ANOTHER"
        )
    checkpoint = open_checkpoint(run.directory, step=step)
    return Start(checkpoint, checkpoint.step or 0, goes_on=True, of_another_program=True)
