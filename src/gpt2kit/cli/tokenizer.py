"""gpt2 tokenizer train: learn a vocabulary from text files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from gpt2kit.config.reading import ReadingConfig


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain:
    """Learn a vocabulary from text files.

    Writes vocab.json, merges.txt and tokenizer.json, which transformers and GPT-2's own programs read.
    """

    files: Annotated[tuple[str, ...], Positional, arg(metavar="TEXT...", help_behavior_hint="")]
    """Files (.txt, .md, .jsonl, .csv, .parquet; texts also as .gz or .zst), directories, globs, or "-"."""
    output: Annotated[Path, arg(aliases=("-o",))]
    """The directory to write to."""
    vocab_size: int = 8192
    """Most tokens to learn: 256 bytes, merges, and the end token. Small models like small vocabularies."""
    reading: OmitArgPrefixes[ReadingConfig] = ReadingConfig()

    def __call__(self) -> int:
        """Learn, write, and say how much text a token holds."""
        from gpt2kit.jobs.learn_vocabulary import learn

        tokenizer = learn(self.files, self.vocab_size, self.output, reading=self.reading)
        print(f"{self.output}: {tokenizer.vocab_size:,} tokens")
        if tokenizer.vocab_size < self.vocab_size:
            print(f"(fewer than {self.vocab_size:,}: no other pair of tokens occurs twice in this text)")
        return 0
