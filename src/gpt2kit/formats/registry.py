"""Which format is this? Every known format, asked in turn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.progress import Report

FLOATS = ("float32", "float16", "bfloat16")
LOOKED_AT = 50  # names in a directory, when something to read is looked for


class FormatModule(Protocol):
    """What every module of a format has."""

    def sniff(self, path: Path) -> bool:
        """Whether what lies at `path` is of this format."""

    def read(self, path: Path, *, step: int | None = None) -> Checkpoint:
        """The checkpoint at `path`. Raises FormatError, WeightMismatch."""

    def write(self, checkpoint: Checkpoint, path: Path, report: Report, **options: Any) -> None:
        """Write it to `path`."""

    def stored(self, checkpoint: Checkpoint, dtype: str | None) -> Checkpoint:
        """Where the format has types of its own: the tensors as they will be written, of the type asked for."""


@dataclass(frozen=True)
class Format:
    """One way to keep a checkpoint."""

    name: str
    description: str
    home: str
    """Its module, loaded when it is needed."""
    dtypes: Sequence[str] = FLOATS
    """The types of weights that it is written with; none where it is only read."""
    own_dtypes: bool = False
    """Whether the module knows better than `stored_as` what is written with which type."""
    shards: bool = False
    """Whether it can be written to several files."""
    steps: bool = False
    """Whether one place can hold several steps of a training."""
    suffix: str | None = None
    """How a destination ends that shall be a file of this format, and not a directory."""

    @property
    def module(self) -> FormatModule:
        """What reads and writes it."""
        return cast(FormatModule, import_module(f"gpt2kit.formats.{self.home}"))


# Where a directory holds several, the first is taken.
KNOWN = (
    Format(
        "safetensors",
        "Hugging Face directory with model.safetensors; what gpt2kit itself writes",
        "huggingface",
        shards=True,
    ),
    Format("nanogpt", "nanoGPT's ckpt.pt", "nanogpt"),
    Format("bin", "Hugging Face directory with pytorch_model.bin; of 2019 too", "torch_bin", shards=True),
    Format("h5", "Hugging Face directory with tf_model.h5, for TensorFlow 2", "keras_h5", ("float32",)),
    Format(
        "gpt2-ml",
        "imcaspar's GPT2-ML, the Chinese model for TensorFlow 1",
        "gpt2_ml",
        (),
        steps=True,
    ),
    Format(
        "tf2",
        "TensorFlow 2's SavedModel or checkpoint of TFGPT2LMHeadModel",
        "tensorflow2",
        (),
        steps=True,
    ),
    Format(
        "openai",
        "OpenAI's directory for TensorFlow 1; runs of nshepperd's code and gpt-2-simple",
        "openai",
        ("float32",),
        steps=True,
    ),
    Format(
        "gguf",
        "llama.cpp's file, with its tokenizer",
        "gguf",
        (*FLOATS, "q8_0", "q4_0"),
        own_dtypes=True,
        suffix=".gguf",
    ),
    Format(
        "onnx",
        "directory with model.onnx, for onnxruntime and optimum; the graph takes and gives past keys and values",
        "onnx_model",
    ),
)
FORMATS = tuple(format for format in KNOWN if format.dtypes)
"""Those that can be written."""


def recognise(path: Path) -> Format | None:
    """The format of what lies at `path`, by its content."""
    return next((format for format in KNOWN if format.module.sniff(path)), None)


def detect(path: Path) -> Format:
    """The format of `path`, by its content. Raises FormatError when no format knows it."""
    from gpt2kit.formats import peft_adapter

    adapter = peft_adapter.directory_of(path)
    if (adapter is None or adapter == path) and (format := recognise(path)):
        return format
    if adapter:
        raise FormatError(path, None, f"an adapter of PEFT, not a whole model; name it after its base: BASE+{adapter}")
    if near := _near(path):
        raise FormatError(path, None, f"no checkpoint itself, but there is one: name {' or '.join(map(str, near))}")
    known = "; ".join(f"{format.name} ({format.description})" for format in KNOWN)
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
    known = ", ".join(format.name for format in FORMATS)
    if any(format.name == name for format in KNOWN):
        raise ConfigError(f"the format {name} is only read; written are {known}")
    raise ConfigError(f"no format {name!r}; there are {known}")
