"""What a TrainingConfig leaves open, decided from the text and the model: pure rules, each with its reason.

Sources: Kaplan et al. 2020, equation D.1 (learning rate from scratch); Hoffmann et al. 2022 (20 tokens a parameter);
Muennighoff et al. 2023 (repeating text pays for some four passes, then less and less).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from gpt2kit.config.model import ModelConfig
from gpt2kit.config.training import Precision, Recipe, TrainingConfig
from gpt2kit.errors import DataError

STEP_TOKENS = 4096
LARGE_MODEL = 200_000_000  # parameters; one window of these at a time is enough for a small GPU
HELD_OUT_TOKENS = 200_000
FEWEST_STEPS = 50
VALIDATIONS = 20  # in a run


@dataclass(frozen=True)
class Facts:
    """What the decisions rest on."""

    measured: int
    """Tokens that a validation measures on."""
    model: ModelConfig
    parameters: int
    first_loss: float | None
    """Before the first step, in nats a token; None where no decision rests on it."""
    precision: Precision
    precision_reason: str

    @property
    def learnt(self) -> bool:
        """Whether the model predicts better than by chance already."""
        return self.first_loss is None or self.first_loss < 0.9 * math.log(self.model.vocab_size)


@dataclass(frozen=True)
class Decision:
    """One setting that nobody named, and why it is what it is."""

    setting: str
    value: Any
    reason: str


def decide_split(config: TrainingConfig, tokens: int) -> tuple[float, list[Decision]]:
    """The share of the text to hold out."""
    if config.validation_share is not None:
        return config.validation_share, []
    share = min(0.1, HELD_OUT_TOKENS / max(tokens, 1))
    reason = "a tenth of the text" if share == 0.1 else f"{HELD_OUT_TOKENS:,} tokens measure well enough"
    return share, [Decision("validation_share", round(share, 6), reason)]


def decide_window(config: TrainingConfig, model: ModelConfig, learnt_tokens: int) -> tuple[int, list[Decision]]:
    """Tokens a window: the model's, unless the text is so short that few windows fit."""
    asked = min(config.window or model.window, model.window)
    window = asked
    while window > 64 and learnt_tokens < 8 * window and config.window is None:
        window //= 2
    window = min(window, learnt_tokens - 1)
    if window < 1:
        raise DataError(f"tokens to learn from: {learnt_tokens}; a model learns from at least 2, better from thousands")
    if window < asked:
        return window, [Decision("window", window, f"shorter than {asked:,}: the text has {learnt_tokens:,} tokens")]
    if config.window is None:
        return window, [Decision("window", window, "the model's")]
    if config.window > model.window:
        return window, [Decision("window", window, f"the model has no more; {config.window:,} were asked")]
    return window, []


def decide(
    config: TrainingConfig, facts: Facts, windows: int, window: int, share: float
) -> tuple[Recipe, list[Decision]]:
    """Everything else. `windows` is how many of `window` tokens one pass over the learnt text reads."""
    made: list[Decision] = []

    def settle(setting: str, value: Any, reason: str) -> Any:
        if (asked := getattr(config, setting)) not in (None, "auto"):
            return asked
        made.append(Decision(setting, value, reason))
        return value

    precision = settle("precision", *_precision(config, facts))
    batch = settle("batch_size", *_batch_size(window, windows, config.accumulate or 1))
    accumulate = settle("accumulate", *_accumulate(config, facts, batch))
    steps = settle("steps", *_steps(config, facts, windows, window, batch))
    rate = settle("learning_rate", *_learning_rate(facts))
    warmup = settle("warmup_steps", min(max(steps // 20, 1), 200), "a twentieth of the steps, at most 200")
    # A validation costs about a third of learning from the same tokens.
    held_out_steps = facts.measured / (3 * window * batch)
    spacing = max(math.ceil(steps / VALIDATIONS), math.ceil(10 * held_out_steps))
    often = f"{VALIDATIONS} times in a run, a tenth of its time at most"
    validate = settle("validate_every", min(spacing, steps), often)
    save = settle("save_every", validate, "with every validation")
    sample = settle("sample_every", validate, "with every validation")
    values = {"steps": steps, "batch_size": batch, "accumulate": accumulate, "window": window, "learning_rate": rate}
    values |= {"warmup_steps": warmup, "precision": precision, "validation_share": share, "validate_every": validate}
    values |= {"save_every": save, "sample_every": sample, "epochs": None}
    return Recipe.of(replace(config, **values)), made


def _precision(config: TrainingConfig, facts: Facts) -> tuple[Precision, str]:
    if facts.precision == "fp16" and config.step_in_backward:
        return "fp32", f"{facts.precision_reason}, and step_in_backward cannot scale the loss for fp16"
    return facts.precision, facts.precision_reason


def _batch_size(window: int, windows: int, parts: int) -> tuple[int, str]:
    wanted = max(1, STEP_TOKENS // window)
    size = math.ceil(min(wanted, windows) / parts) * parts
    return size, "as many windows as the text has" if windows < wanted else f"about {STEP_TOKENS:,} tokens a step"


def _accumulate(config: TrainingConfig, facts: Facts, batch: int) -> tuple[int, str]:
    if facts.parameters > LARGE_MODEL and not config.step_in_backward:
        return batch, f"one window at a time, for {facts.parameters:,} parameters"
    return 1, "the whole batch at once"


def _steps(config: TrainingConfig, facts: Facts, windows: int, window: int, batch: int) -> tuple[int, str]:
    passes, reason = config.epochs, f"{config.epochs:g} x the text" if config.epochs else ""
    if passes is None:
        learnt_tokens = windows * window
        if facts.learnt:
            passes = 4 if learnt_tokens < 1_000_000 else 2 if learnt_tokens < 10_000_000 else 1
        else:
            passes = min(max(20 * facts.parameters / learnt_tokens, 1), 20)
        before = "before" if facts.learnt else "nothing before"
        reason = f"{passes:.3g} x the text, for a model that has learnt {before}"
    steps = math.ceil(passes * windows / batch)
    if steps < FEWEST_STEPS and config.epochs is None:
        return FEWEST_STEPS, "the fewest that change a model"
    return steps, reason


def _learning_rate(facts: Facts) -> tuple[float, str]:
    if facts.learnt:
        rate = min(1e-4 * math.sqrt(124e6 / facts.parameters), 3e-4)
        return float(f"{rate:.2g}"), "1e-4 for 124M that have learnt before, less by the root of the size"
    rate = 0.003239 - 0.0001395 * math.log(facts.parameters)
    return float(f"{rate:.2g}"), "from scratch, by the size (Kaplan et al. 2020)"
