"""How far two checkpoints are apart: settings, vocabulary, and value by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpt2kit.checkpoint import CHUNK, Checkpoint, LazyTensor
from gpt2kit.errors import FormatError
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.tokenizer.open import holds_tokenizer, holds_vocabulary, open_tokenizer
from gpt2kit.tokenizer.vocabulary import read_vocabulary


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that two checkpoints hold."""

    name: str
    bit_equal: bool
    """The same type and the same bits."""
    largest: float
    """The largest absolute difference of two values; infinite where one is NaN or infinite and one is not."""


@dataclass(frozen=True)
class Difference:
    """All in which two checkpoints differ, `a` and `b`."""

    settings: Mapping[str, tuple[Any, Any]]
    """Fields of the configuration: what `a` says, and what `b` says."""
    vocabulary: str | None
    """What is different about the vocabulary, in words."""
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """Tensors of the same name and another shape."""
    tensors: tuple[TensorDifference, ...] = field(repr=False)
    """Every tensor that both hold, equal ones included."""

    @property
    def bit_equal(self) -> bool:
        """Whether the tensors of both are the same, bit for bit."""
        lone = self.only_a or self.only_b or self.reshaped
        return not lone and all(tensor.bit_equal for tensor in self.tensors)

    @property
    def nothing(self) -> bool:
        """Whether the models are the same in all."""
        return self.bit_equal and not self.settings and self.vocabulary is None

    @property
    def largest(self) -> float:
        """The largest difference of two values."""
        return max((tensor.largest for tensor in self.tensors), default=0.0)


def compare(
    a: str | Path | Checkpoint, b: str | Path | Checkpoint, report: Report = silent, task: str = "compare"
) -> Difference:
    """Read two checkpoints once, a piece of a tensor at a time; what is not open yet, `open_checkpoint` opens."""
    a, b = (model if isinstance(model, Checkpoint) else open_checkpoint(model) for model in (a, b))
    settings = {
        setting.name: (ours, theirs)
        for setting in fields(a.config)
        if (ours := getattr(a.config, setting.name)) != (theirs := getattr(b.config, setting.name))
    }
    both = [name for name in a.tensors if name in b.tensors]
    alike = [name for name in both if a.tensors[name].shape == b.tensors[name].shape]
    total, done, tensors = sum(a.tensors[name].size_bytes for name in alike), 0, []
    for name in alike:
        tensors.append(compare_tensors(a.tensors[name], b.tensors[name]))
        done += a.tensors[name].size_bytes
        report(Progress(task, done, total, "byte"))
    return Difference(
        settings,
        _vocabulary_difference(a, b),
        only_a=tuple(name for name in a.tensors if name not in b.tensors),
        only_b=tuple(name for name in b.tensors if name not in a.tensors),
        reshaped={name: (a.tensors[name].shape, b.tensors[name].shape) for name in both if name not in alike},
        tensors=tuple(tensors),
    )


def compare_tensors(a: LazyTensor, b: LazyTensor) -> TensorDifference:
    """Compare two tensors of one shape."""
    values_a, values_b = a.read().reshape(-1), b.read().reshape(-1)
    bit_equal, largest = a.dtype == b.dtype, 0.0
    for begin in range(0, values_a.size, CHUNK):
        part_a, part_b = (np.ascontiguousarray(values[begin : begin + CHUNK]) for values in (values_a, values_b))
        if a.dtype == b.dtype and np.array_equal(part_a.view(np.uint8), part_b.view(np.uint8)):
            continue
        bit_equal = False
        largest = max(largest, _largest_difference(_widened(a, part_a), _widened(b, part_b)))
    return TensorDifference(a.name, bit_equal, largest)


def _widened(tensor: LazyTensor, values: np.ndarray) -> np.ndarray:
    """As float64, which holds every value exactly."""
    if tensor.dtype == "bfloat16":
        values = replace(tensor, load=lambda: values).read_float32()
    return values.astype(np.float64)


def _largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    different = (a != b) & ~(np.isnan(a) & np.isnan(b))
    if not different.any():
        return 0.0
    with np.errstate(invalid="ignore"):
        largest = np.abs(a[different] - b[different]).max()
    return float("inf") if np.isnan(largest) else float(largest)


def _vocabulary_difference(a: Checkpoint, b: Checkpoint) -> str | None:
    holders = [checkpoint for checkpoint in (a, b) if holds_tokenizer(checkpoint.tokenizer_files)]
    if len(holders) < 2:
        return f"only in {holders[0].origin}" if holders else None
    if not any(holds_vocabulary(holder.tokenizer_files) for holder in holders):
        one, other = (open_tokenizer(holder.tokenizer_files, holder.origin) for holder in holders)
        kinds = " and ".join(f"{type(each).__name__} of {each.vocab_size:,} tokens" for each in (one, other))
        return None if one.sha256 == other.sha256 else kinds
    try:
        ours, theirs = (read_vocabulary(checkpoint.tokenizer_files, checkpoint.origin) for checkpoint in holders)
    except FormatError:  # of another kind than GPT-2's: the files can be compared, at least
        return None if a.tokenizer_files == b.tokenizer_files else "the files differ, and one cannot be read"
    moved = sum(theirs.ids.get(token) != id for token, id in ours.ids.items())
    if moved or len(ours.ids) != len(theirs.ids):
        return f"{len(ours.ids):,} and {len(theirs.ids):,} tokens; {moved:,} of the first have another id in the second"
    if ours.merges != theirs.merges:
        return "the same tokens, other merges"
    return None if ours.special == theirs.special else "the same tokens, others of them special"
