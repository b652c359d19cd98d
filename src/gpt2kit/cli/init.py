"""gpt2 init: make a model that has learnt nothing yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from gpt2kit.config.model import SIZES


@dataclass(frozen=True, kw_only=True)
class Init:
    """Make a model that has learnt nothing yet.

    It writes text of random tokens until `gpt2 finetune` trains it.
    """

    size: Annotated[str, arg(metavar="|".join(SIZES))] = "small"
    """tiny trains in seconds, small in minutes on a laptop; the others are the released sizes."""
    tokenizer: Path
    """A directory with a vocabulary: of `gpt2 tokenizer train`, or of any model."""
    output: Annotated[Path, arg(aliases=("-o",))]
    """The new model's directory."""
    seed: int = 0
    """Decides the random weights."""

    def __call__(self) -> int:
        """Write the model and say what it is."""
        from gpt2kit.cli.terminal import drawing
        from gpt2kit.jobs.init import init

        with drawing() as report:
            checkpoint = init(self.size, self.tokenizer, self.output, seed=self.seed, report=report)
        config = checkpoint.config
        print(
            f"{self.output}: {checkpoint.parameter_count():,} parameters, {config.layers} layers, "
            f"{config.width} wide, {config.heads} heads, window {config.window}, {config.vocab_size:,} tokens"
        )
        return 0
