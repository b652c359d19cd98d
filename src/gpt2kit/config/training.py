"""How a model learns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from gpt2kit.config.limits import require, require_finite, require_known

Precision = Literal["fp32", "bf16", "fp16"]
ENDLESS = 2**31 - 1  # the last step of a training that somebody will interrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How a model learns. What is None is decided from the text and the model, and said before the first step."""

    steps: int | None = None
    """Optimizer steps in all; a run that has done them already is left as it is."""
    epochs: float | None = None
    """Passes over the text, instead of steps."""
    batch_size: int | None = None
    """Windows a step."""
    accumulate: int | None = None
    """Parts that the batch is cut into; one is in memory at a time, and the step is the same."""
    accumulate_as: Literal["mean", "sum"] = "mean"
    """mean; or sum, as the old programs did: with sgd, or where gradients are clipped, steps grow with the parts."""
    window: int | None = None
    """Tokens a window, at most the model's."""
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    """muon: Muon for the layers' matrices, AdamW for the rest; learns small models from scratch in fewer steps. sgd:
    plain gradient descent, which remembers nothing."""
    learning_rate: float | None = None
    """The peak of the schedule."""
    muon_learning_rate: float = 0.02
    """The peak for the matrices that Muon learns."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """cosine falls to `final_rate` of the peak by the last step."""
    final_rate: float = 0.1
    """Share of the peak that the cosine ends at."""
    warmup_steps: int | None = None
    """Steps over which the learning rate rises in a line to its peak."""
    weight_decay: float = 0.1
    """Pull on the matrices towards 0; biases and norms are left alone."""
    beta2: float = 0.95
    """Memory of AdamW's second moment."""
    clip_norm: float = 1.0
    """Longest gradient allowed, as the norm over all weights; 0 does not clip."""
    only_train_transformer_layers: bool = False
    """Leave the embeddings, the last norm and a head of its own as they are: less memory for large models."""
    noise: float = 0.0
    """Share of the input tokens that are replaced by random ones; what is to be predicted stays. Hardens against
    typos."""
    dropout: float = 0.0
    """Share of activations dropped while learning; helps where the text is read many times."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the products are computed in; weights and moments stay fp32. fp16 scales the loss. auto: bf16 or fp16 where
    the device is fast at it."""
    recompute: bool = False
    """Gradient checkpointing: keep less of every layer and think again when learning; less memory, a third slower."""
    loss_chunk: int = 512
    """Tokens whose logits are in memory at once."""
    step_in_backward: bool = False
    """Change each weight as soon as its gradient is there, and drop the gradient: less memory. Needs clip_norm 0, one
    part a batch, and not fp16."""
    compile: bool = False
    """Let torch compile the network: faster on GPUs, slower on CPUs."""
    validation_share: float | None = None
    """Share of the text that is held out, in whole documents, and never learnt from; 0 holds out none."""
    validate_every: int | None = None
    """Steps between two measurements on the held-out text."""
    validate_first: bool = False
    """Measure before the first step too."""
    validation_windows: int = 0
    """Measure on so many windows, spread evenly over the held-out text; 0 takes all of it."""
    patience: int = 5
    """Stop when so many measurements in a row have not been better than the best; 0 never stops early."""
    save_every: int | None = None
    """Steps between two snapshots."""
    sample_every: int | None = None
    """Steps between two samples; 0 writes none."""
    sample_tokens: int = 100
    """Length of a sample."""
    print_every: int = 10
    """Steps between two lines of progress."""
    keep: int = 2
    """Newest snapshots kept; the best one is kept besides."""
    seed: int = 0
    """Decides the order of the windows, what dropout drops, and the noise."""

    def __post_init__(self) -> None:
        require_finite(self)
        require_known(self)
        for name in ("steps", "batch_size", "accumulate", "window", "validate_every", "save_every", "print_every"):
            self._require_at_least(1, name)
        for name in ("loss_chunk", "sample_tokens", "keep"):
            self._require_at_least(1, name)
        for name in ("learning_rate", "warmup_steps", "weight_decay", "clip_norm", "patience"):
            self._require_at_least(0, name)
        for name in ("sample_every", "validation_windows"):
            self._require_at_least(0, name)
        for name in ("epochs", "muon_learning_rate"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be above 0, got {value}")
        for name in ("beta2", "noise", "dropout", "validation_share"):
            value = getattr(self, name)
            require(value is None or 0 <= value < 1, f"{name} must be in [0, 1), got {value}")
        require(0 <= self.final_rate <= 1, f"final_rate must be in [0, 1], got {self.final_rate}")
        require(0 <= self.seed < 2**64, f"seed must be in [0, 2**64), got {self.seed}")
        require(self.epochs is None or self.steps is None, "steps and epochs say the same thing; give one of them")
        if self.batch_size and self.accumulate:
            whole = self.batch_size % self.accumulate == 0
            require(whole, f"a batch_size of {self.batch_size} cannot be cut into {self.accumulate} equal parts")
        if self.step_in_backward:
            require(self.clip_norm == 0, f"step_in_backward cannot clip: set clip_norm to 0, got {self.clip_norm}")
            require(self.accumulate in (None, 1), f"step_in_backward takes the batch whole, not in {self.accumulate}")
            require(self.precision != "fp16", "step_in_backward cannot scale the loss: take bf16 or fp32, not fp16")
            require(self.optimizer == "adamw", f"step_in_backward is for adamw, not {self.optimizer}")

    def _require_at_least(self, least: int, name: str) -> None:
        value = getattr(self, name)
        require(value is None or value >= least, f"{name} must be {least} or more, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(TrainingConfig):
    """A TrainingConfig with nothing left open: what the loop follows."""

    steps: int
    batch_size: int
    accumulate: int
    window: int
    learning_rate: float
    warmup_steps: int
    precision: Precision
    validation_share: float
    validate_every: int
    save_every: int
    sample_every: int

    @classmethod
    def of(cls, config: TrainingConfig) -> Recipe:
        """`config`, of which nothing may be None but `epochs`."""
        values = {field.name: getattr(config, field.name) for field in fields(config)}
        missing = [name for name, value in values.items() if value in (None, "auto") and name != "epochs"]
        assert not missing, f"still open: {missing}"
        return cls(**{**values, "epochs": None})


# What train.py of nshepperd's code and finetune() of gpt-2-simple have in common: Adam as it is, in windows of 1024
# tokens, of which 1023 are predicted.
_OF_2019: dict[str, Any] = {
    "window": 1023,
    "accumulate_as": "sum",
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "beta2": 0.999,
    "clip_norm": 0.0,
    "validation_share": 0.0,
    "patience": 0,
    "save_every": 1000,
    "sample_every": 100,
    "sample_tokens": 1023,
    "print_every": 1,
}
# Settings that belong together, by name: what `--preset` starts from.
PRESETS: dict[str, dict[str, Any]] = {
    # GPT-2's architecture on a megabyte of text, two cores, minutes; with `gpt2 init --size small` and 512 tokens.
    "from-scratch": {
        "steps": 1000,
        "batch_size": 16,
        "window": 128,
        "optimizer": "muon",
        "learning_rate": 3e-3,
        "muon_learning_rate": 0.02,
        "final_rate": 0.0,
        "warmup_steps": 50,
        "validate_every": 250,
        "save_every": 250,
    },
    # AdamW as ever, in a fifth less memory, at three quarters of the speed.
    "lean": {"step_in_backward": True, "clip_norm": 0.0, "recompute": True, "loss_chunk": 256, "accumulate": 1},
    "nshepperd": {**_OF_2019, "batch_size": 1, "accumulate": 1, "learning_rate": 2e-5, "keep": 5},
    "gpt-2-simple": {**_OF_2019, "batch_size": 5, "accumulate": 5, "learning_rate": 1e-4, "keep": 1},
}
