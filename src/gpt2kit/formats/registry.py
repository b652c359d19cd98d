"""Which format is this? Every known format, asked in turn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.formats import huggingface, keras_h5, openai, torch_bin


@dataclass(frozen=True)
class Format:
    """One way to keep a checkpoint."""

    name: str
    description: str
    sniff: Callable[[Path], bool]
    read: Callable[..., Checkpoint]
    write: Callable[..., None]
    dtypes: tuple[str, ...] = ("float32",)
    """The types of weights that it is written with."""
    shards: bool = False
    """Whether it can be written to several files."""
    steps: bool = False
    """Whether one place can hold several steps of a training."""


LOOKED_AT = 50  # names in a directory, when something to read is looked for
HALVES_TOO = ("float32", "float16", "bfloat16")
# Where a directory holds several, the first is taken.
FORMATS = (
    Format(
        "safetensors",
        "Hugging Face directory with model.safetensors; what gpt2kit itself writes",
        huggingface.sniff,
        huggingface.read,
        huggingface.write,
        HALVES_TOO,
        shards=True,
    ),
    Format(
        "bin",
        "Hugging Face directory with pytorch_model.bin; of 2019 too",
        torch_bin.sniff,
        torch_bin.read,
        torch_bin.write,
        HALVES_TOO,
        shards=True,
    ),
    Format(
        "h5",
        "Hugging Face directory with tf_model.h5, for TensorFlow 2",
        keras_h5.sniff,
        keras_h5.read,
        keras_h5.write,
    ),
    Format(
        "openai",
        "OpenAI's directory for TensorFlow 1; runs of nshepperd's code and gpt-2-simple",
        openai.sniff,
        openai.read,
        openai.write,
        steps=True,
    ),
)


def recognise(path: Path) -> Format | None:
    """The format of what lies at `path`, by its content."""
    return next((format for format in FORMATS if format.sniff(path)), None)


def detect(path: Path) -> Format:
    """The format of `path`, by its content. Raises FormatError when no format knows it."""
    if format := recognise(path):
        return format
    if near := _near(path):
        raise FormatError(path, None, f"no checkpoint itself, but there is one: name {' or '.join(map(str, near))}")
    known = "; ".join(f"{format.name} ({format.description})" for format in FORMATS)
    inside = f", holding {', '.join(sorted(p.name for p in path.iterdir())[:6]) or 'nothing'}" if path.is_dir() else ""
    raise FormatError(path, None, f"no checkpoint in a known format{inside}; known: {known}")


def _near(path: Path) -> list[Path]:
    """Up to three places beside or below `path` that a format knows."""
    if not path.is_dir():
        return [path.parent] if path.is_file() and recognise(path.parent) else []
    below = _inside(path)
    folders = [deeper for place in below if place.is_dir() for deeper in _inside(place) if deeper.is_dir()]
    known = []
    for place in (*below, *folders):
        with suppress(OSError):  # not ours to read
            known += [place] if place.exists() and recognise(place) else []
    return known[:3]


def _inside(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder.iterdir())[:LOOKED_AT]
    return []


def writable(name: str) -> Format:
    """The format to write that is called `name`."""
    for format in FORMATS:
        if format.name == name:
            return format
    raise ConfigError(f"no format {name!r}; there are {', '.join(format.name for format in FORMATS)}")
