"""How a model learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2kit.config.limits import require, require_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How a model learns."""

    steps: int = 1000
    """Optimizer steps in all; a run that has done them already is left as it is."""
    batch_size: int = 2
    """Windows a step."""
    window: int = 0
    """Tokens a window; 0 takes the model's window, or the text's length if that is shorter."""
    learning_rate: float = 1e-4
    """The peak of the schedule."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """cosine falls to about a tenth of the peak by the last step."""
    warmup_steps: int = 20
    """Steps over which the learning rate rises in a line to its peak."""
    weight_decay: float = 0.1
    """Pull on the matrices towards 0 (AdamW); biases and norms are left alone."""
    beta2: float = 0.95
    """Memory of AdamW's second moment."""
    clip_norm: float = 1.0
    """Longest gradient allowed, as the norm over all weights; 0 does not clip."""
    validation_share: float = 0.1
    """Share of the text, from its end, that is held out and never learnt from; 0 holds out none."""
    validate_every: int = 100
    """Steps between two measurements on the held-out text."""
    save_every: int = 500
    """Steps between two snapshots."""
    print_every: int = 10
    """Steps between two lines of progress."""
    keep: int = 2
    """Newest snapshots kept; the best one is kept besides."""
    seed: int = 0
    """Decides which windows are drawn."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("steps", "batch_size", "validate_every", "save_every", "print_every", "keep"):
            require(getattr(self, name) >= 1, f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("window", "warmup_steps", "weight_decay", "clip_norm"):
            require(getattr(self, name) >= 0, f"{name} must be 0 or more, got {getattr(self, name)}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(0 <= self.beta2 < 1, f"beta2 must be in [0, 1), got {self.beta2}")
        require(0 <= self.validation_share < 1, f"validation_share must be in [0, 1), got {self.validation_share}")
        require(0 <= self.seed < 2**64, f"seed must be in [0, 2**64), got {self.seed}")
