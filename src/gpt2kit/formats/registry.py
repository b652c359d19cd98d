"""Which format is this? Every known format, asked in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.errors import FormatError
from gpt2kit.formats import huggingface


@dataclass(frozen=True)
class Format:
    """One way to keep a checkpoint."""

    name: str
    description: str
    sniff: Callable[[Path], bool]
    read: Callable[..., Checkpoint]


FORMATS = (Format("huggingface", "Hugging Face directory with safetensors", huggingface.sniff, huggingface.read),)


def detect(path: Path) -> Format:
    """The format of `path`, by its content. Raises FormatError when no format knows it."""
    for format in FORMATS:
        if format.sniff(path):
            return format
    known = "; ".join(f"{format.name} ({format.description})" for format in FORMATS)
    inside = f", holding {', '.join(sorted(p.name for p in path.iterdir())[:6]) or 'nothing'}" if path.is_dir() else ""
    raise FormatError(path, None, f"no checkpoint in a known format{inside}; known: {known}")
