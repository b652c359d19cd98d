"""gpt2 generate: continue a prompt, or start from nothing, and print the text as it comes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.generate.select import DeviceName, EngineName


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Continue a prompt, or start from nothing.

    Samples come from what the model has read; nothing filters them. Each is printed as it is written, without the
    prompt. Several samples get a line between them.
    """

    prompt: Annotated[str | None, Positional] = None
    """Text to continue; "-" reads standard input; none starts from nothing."""
    model: Annotated[str, arg(aliases=("--model-name",))] = "124M"
    """A known name (124M), a directory, a file, or a run (run1, run1@2000, run1@best)."""
    nsamples: int = 1
    """How many texts; each has its own randomness."""
    sampling: OmitArgPrefixes[UseAppendAction[SamplingConfig]] = SamplingConfig()
    stop: OmitArgPrefixes[UseAppendAction[StopConfig]] = StopConfig()
    batch_size: int = 8
    """Texts written at once; changes the speed only."""
    engine: EngineName = "auto"
    """auto: torch where it is installed, else the slow numpy reference."""
    device: DeviceName = "auto"
    """auto: a GPU where torch finds one."""
    config: Path | None = None
    """A TOML file with any of these options; options on the command line win."""

    def __call__(self) -> int:
        """Print the samples."""
        # Engines load here, not for --help.
        from gpt2kit.data.documents import decode_text
        from gpt2kit.jobs.generate import generate

        prompt = decode_text(sys.stdin.buffer.read(), "standard input") if self.prompt == "-" else self.prompt
        pieces = generate(
            self.model,
            prompt,
            samples=self.nsamples,
            sampling=self.sampling,
            stop=self.stop,
            batch_size=self.batch_size,
            engine=self.engine,
            device=self.device,
        )
        begun, seed = 0, None
        for piece in pieces:
            if piece.sample == begun:
                begun += 1
                print(self._header(begun), end="")
            print(piece.text, end="", flush=True)
            if piece.completion:
                print(flush=True)
                seed = piece.completion.seed
        if self.sampling.seed is None and self.sampling.temperature > 0:
            print(f"seed {seed}", file=sys.stderr)
        return 0

    def _header(self, number: int) -> str:
        return "" if self.nsamples == 1 else f"{'=' * 40} SAMPLE {number} {'=' * 40}\n"
