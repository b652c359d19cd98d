"""How texts are read, and what stands between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt2kit.config.limits import require, require_known

InvalidUtf8 = Literal["refuse", "replace"]


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
    invalid_utf8: InvalidUtf8 = "refuse"
    """What is not UTF-8: refuse names the file and the byte; replace puts U+FFFD there and warns."""

    def __post_init__(self) -> None:
        require_known(self)
        require(self.field != "", "field must not be empty; it is the key of a JSON line, such as text")
