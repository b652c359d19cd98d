"""The settings of a GPT2-ML: configs/base.json, large.json, mega.json of its repository, and config.json of our runs.

vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, max_position_embeddings, and
hidden_act, which is "gelu", the exact one. In runs also model_type: "gpt2-ml".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2kit.config.limits import require
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError, FormatError

MODEL_TYPE = "gpt2-ml"
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "inner_width",
    "max_position_embeddings": "window",
}


def config_of(stored: Mapping[str, Any], place: Path) -> ModelConfig:
    """The configuration that the object `stored`, found at `place`, describes. Raises FormatError."""
    try:
        for name in FIELDS:
            require(name in stored, f"{name} is missing; expected the settings of a GPT2-ML, as in its mega.json")
            require(type(stored[name]) is int, f"{name} is {stored[name]!r:.80}; expected a whole number")
        require(
            stored.get("hidden_act", "gelu") == "gelu", f"hidden_act is {stored.get('hidden_act')!r}; known is gelu"
        )
        return ModelConfig(
            architecture="gpt2-ml",
            activation="gelu_exact",
            vocab_size=stored["vocab_size"],
            window=stored["max_position_embeddings"],
            width=stored["hidden_size"],
            layers=stored["num_hidden_layers"],
            heads=stored["num_attention_heads"],
            inner_width=stored["intermediate_size"],
        )
    except ConfigError as error:
        raise FormatError(place, None, str(error)) from None


def config_json(config: ModelConfig, end_id: int | None, dtype: str) -> dict[str, Any]:
    """What config.json of a run says."""
    return {
        "model_type": MODEL_TYPE,
        **{theirs: getattr(config, ours) for theirs, ours in FIELDS.items()},
        "hidden_act": "gelu",
        "eos_token_id": end_id,
        "dtype": dtype,
    }
