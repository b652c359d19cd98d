"""What an encoding was made of: its inputs, how they were read, and the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.sources import Source
from gpt2kit.tokenizer.protocol import Tokenizer


def recipe_of(sources: Sequence[Source], reading: ReadingConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What an encoding is made of; equal recipes give equal ids."""
    return {
        "sources": [[str(source.path), source.size_bytes, source.modified_ns] for source in sources],
        "reading": asdict(reading),
        "tokenizer_sha256": tokenizer.sha256,
    }


def difference(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How `wanted` differs from the recipe something was `made` by, in words; "" where it does not."""
    if made.get("tokenizer_sha256") != wanted["tokenizer_sha256"]:
        return "the vocabulary is another"
    if _with_defaults(made.get("reading")) != wanted["reading"]:
        return "the reading options are others"
    if (before := made.get("sources")) != wanted["sources"]:
        known = set(map(str, before or []))
        changed = [name for name, *rest in wanted["sources"] if str([name, *rest]) not in known]
        return f"the inputs have changed, such as {changed[0]}" if changed else "there were more inputs"
    return ""


def _with_defaults(reading: Any) -> Any:
    """Options younger than the recipe were at their defaults when it was made."""
    return asdict(ReadingConfig()) | reading if isinstance(reading, dict) else reading


def total_bytes(sources: Sequence[Source]) -> int | None:
    """The size of all inputs on disk, where it is known."""
    sizes = [source.size_bytes for source in sources if source.size_bytes is not None]
    return sum(sizes) if len(sizes) == len(sources) else None
