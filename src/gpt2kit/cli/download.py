"""gpt2 download: fetch models, verified, and go on where a download was broken off."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gpt2kit.errors import ConfigError
from gpt2kit.hub.catalogue import MODELS


@dataclass(frozen=True, kw_only=True)
class Download:
    """Get the files of released models.

    Any GPT-2 of the Hugging Face hub will do too. Broken off and started again, it goes on where it was; what is there
    already is not fetched again.
    """

    names: Annotated[tuple[str, ...], Positional, arg(metavar="NAME...", help_behavior_hint="")]
    """124M, 355M, 774M, 1558M (once 117M, 345M, 762M, 1.5B), gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or any
    hf:owner/name."""
    source: Literal["auto", "openai", "huggingface"] = "auto"
    """auto takes OpenAI's store for OpenAI's names (124M, 117M), and the hub for all others."""
    endpoint: Annotated[str | None, arg(metavar="URL")] = None
    """A mirror to fetch from; for the hub also in the environment, as HF_ENDPOINT. A token goes into HF_TOKEN."""
    models_dir: Path = MODELS
    """Where every model gets a directory of its name."""

    def __call__(self) -> int:
        """Check all names, fetch the models in turn, and say where they are."""
        from gpt2kit.cli.terminal import drawing
        from gpt2kit.hub.order import place_order
        from gpt2kit.jobs.download import carry_out

        if not self.names:
            raise ConfigError("which model? Name it, such as: gpt2 download 124M")
        source = None if self.source == "auto" else self.source
        orders = [
            place_order(name, source=source, endpoint=self.endpoint, models=self.models_dir)
            for name in dict.fromkeys(self.names)
        ]
        try:
            for order in orders:
                with drawing() as report:
                    got = carry_out(order, report)
                what = f"{got.files} files, {got.size_bytes / 1e6:,.1f} MB"
                print(
                    f"{got.folder}: {what}, checked" if got.new else f"{got.folder}: {what}, all there; nothing fetched"
                )
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from here", file=sys.stderr)
            return 130
        model = orders[0].name if self.models_dir == MODELS else str(orders[0].folder)
        print(f"\nto write with it: gpt2 generate --model {model}")
        return 0
