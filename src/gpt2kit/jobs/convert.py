"""Turn a checkpoint of one format into one of another: what is read is written, read again and compared."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from gpt2kit.atomic import sync_directory
from gpt2kit.checkpoint import Checkpoint, FloatType, LazyTensor
from gpt2kit.config.limits import require
from gpt2kit.data.workplace import is_taken, working_beside
from gpt2kit.errors import ConfigError, DiskFull, FormatError
from gpt2kit.formats.registry import Format, writable
from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.hub.catalogue import MODELS
from gpt2kit.jobs.compare import Difference, compare
from gpt2kit.progress import Report, silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import RUNS, is_run
from gpt2kit.tokenizer.open import holds_vocabulary, open_tokenizer

StoredType = FloatType | Literal["q8_0", "q4_0"]

MODEL = "model"
TAKEN = "holds something already; name a new directory, or empty it first"
PROBE_TOKENS = 64
PROBE = (
    "The quick brown fox jumps over the lazy dog. In 1872, Jules Verne sent Phileas Fogg around the world; he came "
    "back after 80 days, and had won a day on the way. def add(a, b): return a + b"
)


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote, as it was read again."""

    checkpoint: Checkpoint
    format: str
    difference: Difference
    """Between the source and what was written."""
    equal_argmax: float | None
    """Share of a probe's positions where both find the same token likeliest; None where no value differs."""


def convert(
    source: str | Path | Checkpoint,
    destination: str | Path,
    *,
    to: str = "safetensors",
    dtype: StoredType | None = None,
    shard_bytes: int | None = None,
    step: int | None = None,
    models: Path = MODELS,
    runs: Path = RUNS,
    report: Report = silent,
) -> Conversion:
    """Write `source` to the new directory or file `destination`, which appears when all is written and checked.

    Args:
        source: what `open_checkpoint` takes: a path, a run, a known name; or a checkpoint that is open already.
        destination: a directory that does not exist, or is empty; not inside of `source`; for a gguf also a new file.
        to: the name of a format that can be written: "safetensors", "bin", "openai", "h5", "gguf", "nanogpt" or "onnx".
        dtype: how to store the weights; None keeps what they are, or what the format can hold. "q8_0" and "q4_0" are
            llama.cpp's, of the format gguf.
        shard_bytes: the most that one file of weights may hold; None writes one file.
        step: which step of a run that holds several.
        models, runs: where known names and runs are.
        report: told how far it is, in bytes.

    Raises:
        ConfigError: `destination` holds something, or the format cannot hold this model (no format a GPT2-ML) or
            `dtype`.
        DiskFull: there is no room; nothing is left behind.
        ModelNotFound, FormatError, WeightMismatch: `source` cannot be read.
        RunLocked: another process is writing `destination`.
    """
    # A link to a directory stays a link, and what it leads to is written.
    destination, format = Path(destination).resolve(), writable(to)
    require(shard_bytes is None or shard_bytes > 0, f"a shard must hold 1 byte or more, got {shard_bytes}")
    require(shard_bytes is None or format.shards, f"{to} is not written in shards; leave their size out")
    if not isinstance(source, Checkpoint):
        source = open_checkpoint(source, step=step, models=models, runs=runs)
    _require_gpt2(source, to)
    wanted = _as_stored(source, format, dtype)
    _require_place(destination, source)
    _require_room(wanted, destination)
    with working_beside(destination) as place:
        _require_place(destination, source)  # another process may have finished a moment ago
        written = place / f"{MODEL}{format.suffix or ''}" if destination.suffix == format.suffix else place / MODEL
        _remove(written)  # what a killed conversion left
        try:
            format.module.write(wanted, written, report, **({"shard_bytes": shard_bytes} if format.shards else {}))
            difference, equal_argmax = _compared(source, wanted, format.module.read(written), report)
            _put(written, destination)
        finally:
            _remove(written)
    return Conversion(format.module.read(destination), format.name, difference, equal_argmax)


def _require_gpt2(source: Checkpoint, to: str) -> None:
    require(
        source.config.architecture == "gpt2",
        f"{source.origin}: a GPT2-ML cannot be kept as {to}, nor in any format of GPT-2: it normalises the embeddings "
        "and behind each layer, GPT-2 before; the same weights would make another model. All commands take it as it is",
    )


def _remove(written: Path) -> None:
    if written.is_file():
        written.unlink()
    shutil.rmtree(written, ignore_errors=True)


def _as_stored(source: Checkpoint, format: Format, dtype: StoredType | None) -> Checkpoint:
    """The checkpoint with its weights as they will be stored: as `dtype`, else as they are, else as float32."""
    if dtype is not None and dtype not in format.dtypes:
        raise ConfigError(f"{format.name} cannot hold {dtype}; it holds {' or '.join(format.dtypes)}")
    if format.own_dtypes:
        return format.module.stored(source, dtype)
    kept = next((float_type for float_type in get_args(FloatType) if float_type == dtype), None)
    fitted: dict[str, LazyTensor] = {
        name: tensor.stored_as(kept or "float32") if kept or tensor.dtype not in format.dtypes else tensor
        for name, tensor in source.tensors.items()
    }
    return replace(source, tensors=fitted)


def _require_place(destination: Path, source: Checkpoint) -> None:
    origin = Path(source.base_origin)
    if is_taken(destination):
        raise ConfigError(f"{destination}: {TAKEN}")
    if Path.cwd().is_relative_to(destination):
        raise ConfigError(f"{destination}: is where you are, and a directory is replaced as a whole; name a new one")
    if os.path.ismount(destination):
        raise ConfigError(f"{destination}: is a disk of its own; name a new directory on it")
    if origin.is_dir() and origin.resolve() in destination.parents:
        raise ConfigError(f"{destination}: lies inside of what is converted, {origin}; name a place outside")
    if run := next((place for place in destination.parents if is_run(place)), None):
        raise ConfigError(f"{destination}: lies inside of the run {run}, which tidies up; name a place outside")


def _require_room(checkpoint: Checkpoint, destination: Path) -> None:
    size_bytes = sum(tensor.size_bytes for tensor in checkpoint.tensors.values())
    above = next(place for place in destination.absolute().parents if place.is_dir())
    free_bytes = shutil.disk_usage(above).free
    if size_bytes > free_bytes:
        raise DiskFull(
            f"{destination}: takes {size_bytes / 1e6:,.1f} MB, {free_bytes / 1e6:,.1f} MB are free there; name a place "
            "with more"
        )


def _compared(
    source: Checkpoint, wanted: Checkpoint, found: Checkpoint, report: Report
) -> tuple[Difference, float | None]:
    against_wanted = compare(wanted, found, report)
    lost_words = against_wanted.vocabulary is not None and holds_vocabulary(source.tokenizer_files)
    if not against_wanted.bit_equal or against_wanted.settings or lost_words:
        lost = [*against_wanted.settings, *(["the vocabulary"] if lost_words else [])]
        what = ", ".join(lost) or "values (is the disk faulty?)"
        raise FormatError(source.origin, None, f"does not read back as it was written: {what}; nothing was kept")
    converted = any(tensor is not wanted.tensors[name] for name, tensor in source.tensors.items())
    difference = compare(source, found, report, "compare with the source") if converted else against_wanted
    return difference, _share_of_equal_argmax(source, found) if difference.largest else None


def _share_of_equal_argmax(a: Checkpoint, b: Checkpoint) -> float:
    """How often both find the same token likeliest, over the positions of a probe; a layer in memory at a time."""
    ids = np.random.default_rng(0).integers(a.config.vocab_size, size=PROBE_TOKENS).tolist()
    with suppress(FormatError):  # without a vocabulary, or with one of another kind, any ids will do
        words = open_tokenizer(a.tokenizer_files, a.origin).encode(PROBE)
        ids = words if max(words) < a.config.vocab_size else ids
    row = Row(0, ids[: min(PROBE_TOKENS, a.config.window)], "all")
    likeliest_a, likeliest_b = (
        ReferenceEngine(model, 1, weights=_ReadWhenUsed(model)).step([row]).argmax(axis=-1) for model in (a, b)
    )
    return float((likeliest_a == likeliest_b).mean())


class _ReadWhenUsed(Mapping[str, np.ndarray]):
    """A checkpoint's weights in float32, read anew at each use and never held."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tensors = checkpoint.tensors

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name].read_float32()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _put(written: Path, destination: Path) -> None:
    """Let the finished directory take its name; all files in it are on the disk."""
    try:
        if destination.is_dir():
            destination.rmdir()  # it is empty
        os.replace(written, destination)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise
        raise ConfigError(f"{destination}: {TAKEN}") from None
    sync_directory(destination.parent)
