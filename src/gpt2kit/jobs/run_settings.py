"""run.toml: what a run was trained with, and how one that goes on keeps to it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace

from gpt2kit.atomic import replace_bytes
from gpt2kit.config.engine import DeviceName
from gpt2kit.config.reading import ReadingConfig
from gpt2kit.config.toml_file import from_table, read_toml, to_toml
from gpt2kit.config.training import ENDLESS, TrainingConfig
from gpt2kit.runs import Run

SETTINGS = "run.toml"
# A run that goes on with another value of these is told so.
HOW_IT_LEARNS = (
    *("batch_size", "accumulate_as", "window", "optimizer", "learning_rate", "muon_learning_rate", "schedule"),
    *("final_rate", "warmup_steps", "weight_decay", "beta2", "clip_norm", "only_train_transformer_layers", "noise"),
    *("dropout", "precision", "validation_share", "seed"),
)


@dataclass(frozen=True)
class RunSettings:
    """What run.toml holds: `gpt2 finetune --config run.toml` goes on with the run."""

    dataset: tuple[str, ...]
    validation: tuple[str, ...]
    model: str
    run_name: str
    training: TrainingConfig
    reading: ReadingConfig
    device: DeviceName


def former_settings(run: Run) -> TrainingConfig | None:
    """What the run was trained with so far."""
    path = run.directory / SETTINGS
    if not path.exists():
        return None
    return from_table(TrainingConfig, read_toml(path).get("training", {}), str(path), None)


def with_former_settings(asked: TrainingConfig, former: TrainingConfig) -> TrainingConfig:
    """What is asked; and where nothing is, what was decided when the run began."""
    names = [field.name for field in fields(asked) if getattr(asked, field.name) in (None, "auto")]
    if asked.epochs or former.steps == ENDLESS:
        names = [name for name in names if name != "steps"]
    return replace(asked, **{name: getattr(former, name) for name in names})


def tell_changes(run: Run, former: TrainingConfig, now: TrainingConfig) -> None:
    """Warn of what the run learns otherwise from now on."""
    changed = [name for name in HOW_IT_LEARNS if getattr(now, name) != getattr(former, name)]
    if changed:
        differences = ", ".join(f"{name} {getattr(now, name)} (was {getattr(former, name)})" for name in changed)
        warnings.warn(f"{run.name} goes on with {differences}", stacklevel=3)


def write_settings(settings: RunSettings, run: Run, goes_on: bool) -> None:
    """Write run.toml; a run that goes on still started from the model it started from."""
    path = run.directory / SETTINGS
    if goes_on and path.exists():
        settings = replace(settings, model=read_toml(path).get("model", settings.model))
    replace_bytes(path, to_toml(settings))
