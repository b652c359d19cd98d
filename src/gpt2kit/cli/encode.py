"""gpt2 encode: turn texts into token ids on disk, once, so that training begins at once."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from gpt2kit.config.reading import ReadingConfig


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Turn texts into token ids on disk.

    Killed and started again, it goes on where it was. What it makes appears when all is done, and `gpt2 finetune` takes
    it like a text.
    """

    inputs: Annotated[tuple[str, ...], Positional, arg(metavar="INPUT...", help_behavior_hint="")]
    """Files (.txt, .md, .jsonl, .csv, .parquet, .npz; texts also as .gz or .zst), directories, globs, or "-"."""
    output: Annotated[Path, arg(aliases=("-o",))]
    """The directory to make; or a file that ends in .npz, as nshepperd's encode.py wrote it."""
    model: Annotated[str, arg(aliases=("--model-name",))] = "124M"
    """Whose vocabulary: a model, or a directory that holds a vocabulary."""
    reading: OmitArgPrefixes[ReadingConfig] = ReadingConfig()
    workers: int = 0
    """Threads that encode; 0 takes one a core."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace another encoding in OUTPUT."""
    config: Path | None = None
    """A TOML file with any of these options; options on the command line win."""

    def __call__(self) -> int:
        """Encode, drawing progress, and say what there is now."""
        from gpt2kit.cli.terminal import drawing
        from gpt2kit.jobs.encode import encode

        started = time.monotonic()
        try:
            with drawing() as report:
                made = encode(
                    self.inputs,
                    self.output,
                    model=self.model,
                    reading=self.reading,
                    workers=self.workers,
                    overwrite=self.overwrite,
                    report=report,
                )
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from here", file=sys.stderr)
            return 130
        seconds = time.monotonic() - started
        print(f"written     {made.path}" if made.new else f"found       {made.path}, made of the same texts before")
        print(f"tokens      {made.tokens:,}")
        print(f"documents   {made.documents:,}")
        if made.text_bytes:
            rate = f", {made.text_bytes / 1e6 / seconds:,.1f} MB/s" if made.new else ""
            print(f"text        {made.text_bytes:,} bytes, {made.bytes_per_token:.2f} a token{rate}")
        print(f"\nto train on it: gpt2 finetune {made.path} --model {self.model}")
        return 0
