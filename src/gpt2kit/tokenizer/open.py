"""From vocabulary files to a tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.protocol import Tokenizer
from gpt2kit.tokenizer.vocabulary import holds_vocabulary, read_vocabulary
from gpt2kit.tokenizer.wordpiece import holds_wordpiece, read_wordpiece


def open_tokenizer(files: Mapping[str, bytes], origin: str) -> Tokenizer:
    """The tokenizer in `files` (name to content); `origin` names their place in errors. Raises FormatError."""
    if holds_wordpiece(files):
        return read_wordpiece(files, origin)
    return ByteLevelBPE(read_vocabulary(files, origin))


def holds_tokenizer(files: Collection[str]) -> bool:
    """Whether these file names include a vocabulary of some kind."""
    return holds_wordpiece(files) or holds_vocabulary(files)
