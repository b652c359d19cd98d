"""What the shapes of tensors tell about a configuration, where no file beside them tells it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError, FormatError, WeightMismatch

LAYER = re.compile(r"h\.(0|[1-9]\d{0,5})\.")
HEAD_WIDTH = 64  # of every GPT-2 that was released


def config_from_shapes(
    tensors: Mapping[str, LazyTensor], origin: Path, settings: str, heads: int | None = None
) -> ModelConfig:
    """The configuration of a GPT-2 with these canonical tensors; the number of heads is in no shape.

    Args:
        tensors: by canonical name; their names and shapes alone are looked at.
        origin: where they are, for messages.
        settings: the file that should have told, such as "config.json".
        heads: as many as are known; None takes one for each 64 of the width, and warns.

    Raises:
        WeightMismatch: these are not the tensors of a GPT-2.
        FormatError: `heads` is None and 64 does not divide the width.
    """
    try:
        (vocab_size, width), (window, _) = tensors["wte.weight"].shape, tensors["wpe.weight"].shape
        _, inner_width = tensors["h.0.mlp.c_fc.weight"].shape
    except (KeyError, ValueError):
        found = ", ".join(f"{name} {tensor.shape}" for name, tensor in list(tensors.items())[:3]) or "no tensors"
        raise WeightMismatch(f"{origin}: not the tensors of a GPT-2; it holds {found:.200}") from None
    layers = 1 + max(int(match[1]) for name in tensors if (match := LAYER.match(name)))
    if heads is None:
        heads = _guessed_heads(width, origin, settings)
    try:
        return ModelConfig(
            vocab_size=vocab_size,
            window=window,
            width=width,
            layers=layers,
            heads=heads,
            inner_width=inner_width,
            tied_head="lm_head.weight" not in tensors,
        )
    except ConfigError as error:
        raise WeightMismatch(f"{origin}: not the shapes of a GPT-2: {error}") from None


def _guessed_heads(width: int, origin: Path, settings: str) -> int:
    if width % HEAD_WIDTH or not width:
        raise FormatError(
            origin,
            None,
            f"{settings} is missing, and the number of heads cannot be guessed: {HEAD_WIDTH} does not divide the "
            f"width {width}; copy {settings} from where the weights came from",
        )
    heads = width // HEAD_WIDTH
    warnings.warn(
        f"{origin}: {settings} is missing; the shapes tell the rest, but the number of heads is in none of them: taken "
        f"as {width} / {HEAD_WIDTH} = {heads}, as in every released GPT-2",
        stacklevel=2,
    )
    return heads
