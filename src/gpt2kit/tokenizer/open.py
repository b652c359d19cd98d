"""From vocabulary files, of one kind or another, to a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping

from gpt2kit.errors import FormatError
from gpt2kit.json_object import parse_object
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.characters import CHARACTERS, read_characters
from gpt2kit.tokenizer.protocol import Tokenizer
from gpt2kit.tokenizer.vocabulary import PAIRS, TOKENIZER, read_vocabulary
from gpt2kit.tokenizer.wordpiece import VOCABULARY, read_wordpiece


def open_tokenizer(files: Mapping[str, bytes], origin: str) -> Tokenizer:
    """The tokenizer in `files` (name to content); `origin` names their place in errors. Raises FormatError."""
    if holds_wordpiece(files):
        return read_wordpiece(files, origin)
    if holds_characters(files):
        return read_characters(files, origin)
    return ByteLevelBPE(read_vocabulary(files, origin))


def holds_tokenizer(files: Mapping[str, bytes]) -> bool:
    """Whether `files` (name to content) include a vocabulary of some kind."""
    return holds_wordpiece(files) or holds_characters(files) or holds_vocabulary(files)


def holds_wordpiece(files: Mapping[str, bytes]) -> bool:
    """Whether `files` include a WordPiece vocabulary; beside the two files of a byte-level one it is none."""
    if _holds_pair(files):
        return False
    return VOCABULARY in files or _is_wordpiece(files.get(TOKENIZER, b""))


def holds_characters(files: Mapping[str, bytes]) -> bool:
    """Whether `files` include a vocabulary of characters, and no other."""
    return CHARACTERS in files and not (holds_wordpiece(files) or holds_vocabulary(files))


def holds_vocabulary(files: Mapping[str, bytes]) -> bool:
    """Whether `files` include a byte-level vocabulary; beside vocab.txt, tokenizer.json is WordPiece's."""
    return _holds_pair(files) or (TOKENIZER in files and not holds_wordpiece(files))


def _holds_pair(files: Mapping[str, bytes]) -> bool:
    return any(files.keys() >= {*pair} for pair in PAIRS)


def _is_wordpiece(tokenizer_json: bytes) -> bool:
    if b'"WordPiece"' not in tokenizer_json:  # to parse GPT-2's takes a while
        return False
    try:
        model = parse_object(tokenizer_json, TOKENIZER).get("model")
    except FormatError:  # told by whoever reads it
        return False
    return isinstance(model, dict) and model.get("type") == "WordPiece"
