"""What a model is: its shape, and the few choices that change its mathematics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2kit.config.limits import require, require_finite

Activation = Literal["gelu_tanh", "gelu_exact", "relu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a model. Defaults are GPT-2's own; sizes have none."""

    architecture: Literal["gpt2", "gpt2-ml"] = "gpt2"
    """gpt2: layer norm before attention. gpt2-ml: the Chinese model of the Grover lineage."""
    vocab_size: int
    """Rows of the token embedding."""
    window: int
    """Positions the model can see at once (n_ctx)."""
    width: int
    """Numbers that describe one token (n_embd)."""
    layers: int
    """Blocks, one after the other (n_layer)."""
    heads: int
    """Attention heads a block (n_head); they share the width."""
    inner_width: int
    """Width inside the MLP; GPT-2 uses four times the width."""
    activation: Activation = "gelu_tanh"
    """gelu_tanh is GPT-2's; gelu_exact (erf) is nanoGPT's and GPT2-ML's."""
    tied_head: bool = True
    """The output head is the token embedding itself."""
    norm_epsilon: float = 1e-5
    """Added to the variance in every layer norm."""
    scale_attention: bool = True
    """Divide attention scores by the square root of the head width."""
    scale_attention_by_layer: bool = False
    """Divide the scores of layer n (counted from 1) by n as well."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("vocab_size", "window", "width", "layers", "heads", "inner_width"):
            require(getattr(self, name) >= 1, f"{name} must be 1 or more, got {getattr(self, name)}")
        require(self.width % self.heads == 0, f"width {self.width} cannot be shared evenly by {self.heads} heads")
        require(self.norm_epsilon >= 0, f"norm_epsilon must be 0 or more, got {self.norm_epsilon}")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    def attention_scale(self, layer: int) -> float:
        """The factor on the scores of layer `layer` (counted from 0)."""
        scale = self.head_width**-0.5 if self.scale_attention else 1.0
        return scale / (layer + 1) if self.scale_attention_by_layer else scale


@dataclass(frozen=True, slots=True)
class Size:
    """Width, depth and window of a preset."""

    width: int
    layers: int
    heads: int
    window: int = 1024

    def config(self, vocab_size: int) -> ModelConfig:
        """A GPT-2 of this size for a vocabulary of `vocab_size` tokens."""
        return ModelConfig(
            vocab_size=vocab_size,
            window=self.window,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            inner_width=4 * self.width,
        )


# The four released sizes are OpenAI's; "tiny" trains in seconds, "small" in minutes on a laptop.
SIZES: dict[str, Size] = {
    "tiny": Size(width=64, layers=2, heads=2, window=128),
    "small": Size(width=192, layers=4, heads=3, window=128),
    "124M": Size(width=768, layers=12, heads=12),
    "355M": Size(width=1024, layers=24, heads=16),
    "774M": Size(width=1280, layers=36, heads=20),
    "1558M": Size(width=1600, layers=48, heads=25),
}
