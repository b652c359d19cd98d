"""How texts are read, and what stands between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2kit.config.limits import require, require_known
from gpt2kit.errors import ConfigError

InvalidUtf8 = Literal["refuse", "replace", "ignore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingConfig:
    """How texts are read, and what stands between them."""

    field: str = "text"
    """The key of a JSON line that holds the text."""
    column: str = ""
    """The column of a CSV or Parquet file that holds the text, by name or number (from 1); default: CSV's first,
    Parquet's "text"."""
    split_on: str = ""
    """Cut plain texts into documents wherever this stands, such as <|endoftext|>; it is not part of them."""
    separator: str = "<|endoftext|>"
    """What stands behind each document: <|endoftext|> is the end token, anything else is text; empty: nothing."""
    combine: int = 0
    """Join texts shorter than so many characters with the next, the separator as plain text between them, as encode.py
    did; 0: every text is a document (in an .npz: 50000)."""
    encoding: str = "utf-8"
    """The encoding of the texts, such as gb18030, big5, latin-1 or utf-16; any that Python knows."""
    invalid_utf8: InvalidUtf8 = "refuse"
    """What is not UTF-8, or not the encoding named: refuse names the file and the byte; replace puts U+FFFD there,
    ignore leaves it out, and both warn."""

    def __post_init__(self) -> None:
        require_known(self)
        require(self.field != "", "field must not be empty; it is the key of a JSON line, such as text")
        require(self.combine >= 0, f"combine must be 0 or more, got {self.combine}")
        try:
            "a".encode(self.encoding)
        except (LookupError, ValueError):  # no codec, one that is not for text, or no name at all
            known = "utf-8, gb18030, big5, latin-1, utf-16 and all others that Python has"
            raise ConfigError(f"encoding {self.encoding!r} is not known; known are {known}") from None
