"""From vocabulary files to a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping

from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.protocol import Tokenizer
from gpt2kit.tokenizer.vocabulary import read_vocabulary


def open_tokenizer(files: Mapping[str, bytes], origin: str) -> Tokenizer:
    """The tokenizer in `files` (name to content); `origin` names their place in errors. Raises FormatError."""
    return ByteLevelBPE(read_vocabulary(files, origin))
