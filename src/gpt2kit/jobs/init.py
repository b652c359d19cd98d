"""Make a model that has learnt nothing yet."""

from __future__ import annotations

from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.limits import require
from gpt2kit.config.model import SIZES
from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.formats import huggingface
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.progress import Report, silent
from gpt2kit.tokenizer.open import open_tokenizer


def init(size: str, tokenizer: Path, output: Path, *, seed: int = 0, report: Report = silent) -> Checkpoint:
    """Write a model of random weights to the new directory `output`, with the vocabulary found in `tokenizer`.

    Raises:
        ConfigError: the size is unknown, or `output` holds a model already.
        FormatError: `tokenizer` holds no vocabulary.
    """
    require(0 <= seed < 2**64, f"seed must be in [0, 2**64), got {seed}")
    if size not in SIZES:
        raise ConfigError(f"no size {size!r}; there are {', '.join(SIZES)}")
    if huggingface.sniff(output):
        raise ConfigError(f"{output}: holds a model already; name another directory, or remove it first")
    if not tokenizer.is_dir():
        raise FormatError(
            tokenizer, None, "no such directory; learn a vocabulary with: gpt2 tokenizer train FILES -o DIR"
        )
    files = huggingface.read_tokenizer_files(tokenizer)
    vocab_size = open_tokenizer(files, str(tokenizer)).vocab_size
    checkpoint = initial_checkpoint(SIZES[size].config(vocab_size), files, seed)
    huggingface.write(checkpoint, output, report)
    return checkpoint
