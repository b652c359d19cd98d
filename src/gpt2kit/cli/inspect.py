"""gpt2 inspect: what a checkpoint is made of, and how two differ."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from gpt2kit.errors import ConfigError

if TYPE_CHECKING:
    from gpt2kit.checkpoint import Checkpoint
    from gpt2kit.jobs.compare import Difference

SHOWN_DIFFERENCES = 12


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show what a checkpoint is made of, or how two differ."""

    models: Annotated[tuple[str, ...], Positional, arg(metavar="MODEL...", help_behavior_hint="")]
    """A known name (124M), a directory, a file, or a run (run1, run1@2000, run1@best); two for a difference."""
    tensors: FlagCreatePairsOff[bool] = False
    """Read and list every tensor too, with its mean and deviation; NaN and infinite values are pointed out."""
    diff: FlagCreatePairsOff[bool] = False
    """Read two models and show where they differ; the exit status is 1 if they do."""

    def __call__(self) -> int:
        """Print the configuration, and the tensors if asked; or the differences."""
        from gpt2kit.resolve import open_checkpoint

        if len(self.models) != (2 if self.diff else 1):
            expected = "two models with --diff" if self.diff else "one model, or two with --diff"
            raise ConfigError(f"expected {expected}, got {len(self.models)}")
        opened = [open_checkpoint(model) for model in self.models]
        if self.diff:
            return self._print_difference(*opened)
        _print_checkpoint(opened[0])
        if self.tensors:
            _print_tensors(opened[0])
        return 0

    def _print_difference(self, a: Checkpoint, b: Checkpoint) -> int:
        from gpt2kit.cli.terminal import drawing
        from gpt2kit.jobs.compare import compare

        with drawing() as report:
            difference = compare(a, b, report)
        print(f"A {_place(a)}\nB {_place(b)}")
        for line in _difference_lines(difference, every=self.tensors):
            print(line)
        return 0 if difference.nothing else 1


def _place(checkpoint: Checkpoint) -> str:
    return checkpoint.origin + ("" if checkpoint.step is None else f", step {checkpoint.step:,}")


def _print_checkpoint(checkpoint: Checkpoint) -> None:
    from gpt2kit.formats.registry import detect

    size_bytes = sum(len(content) for content in checkpoint.tokenizer_files.values())
    print(f"origin       {_place(checkpoint)}")
    print(f"format       {detect(Path(checkpoint.base_origin)).name}")
    for adapter in checkpoint.adapters:
        print(f"adapter      {adapter}")
    print(f"parameters   {checkpoint.parameter_count():,} in {len(checkpoint.tensors)} tensors")
    print(f"stored as    {', '.join(sorted({tensor.storage for tensor in checkpoint.tensors.values()}))}")
    files = ", ".join(checkpoint.tokenizer_files)
    print(f"tokenizer    {f'{files} ({size_bytes:,} bytes)' if files else 'none'}")
    for field in fields(checkpoint.config):
        print(f"{field.name:<26} {getattr(checkpoint.config, field.name)}")


def _print_tensors(checkpoint: Checkpoint) -> None:
    from gpt2kit.cli.terminal import drawing
    from gpt2kit.jobs.inspect import tensor_figures

    with drawing() as report:
        figures = tensor_figures(checkpoint, report)
    for tensor in figures:
        broken = f"   {tensor.not_finite} values are NaN or infinite" if tensor.not_finite else ""
        shape = "x".join(map(str, tensor.shape))
        print(f"{tensor.name:<28}{tensor.dtype:<10}{shape:<14}{tensor.mean:>10.4f} ± {tensor.deviation:.4f}{broken}")


def _difference_lines(difference: Difference, every: bool) -> list[str]:
    lines = [f"{name}: A {ours}, B {theirs}" for name, (ours, theirs) in difference.settings.items()]
    lines += [f"vocabulary: {difference.vocabulary}"] if difference.vocabulary else []
    tensors = [f"only in A: {name}" for name in difference.only_a]
    tensors += [f"only in B: {name}" for name in difference.only_b]
    tensors += [f"{name:<28}A {ours}, B {theirs}" for name, (ours, theirs) in difference.reshaped.items()]
    differing = sorted((t for t in difference.tensors if not t.bit_equal), key=lambda tensor: -tensor.largest)
    tensors += [f"{tensor.name:<28}{_how_far(tensor.largest)}" for tensor in differing]
    lines += tensors if every else tensors[:SHOWN_DIFFERENCES]
    hidden = 0 if every else len(tensors) - SHOWN_DIFFERENCES
    lines += [f"and {hidden} more tensors; --tensors lists them"] if hidden > 0 else []
    equal, both = len(difference.tensors) - len(differing), len(difference.tensors)
    return [*lines, f"{equal} of {both} tensors that both hold in one shape are bit-equal"]


def _how_far(largest: float) -> str:
    if largest == 0:
        return "equal values, in another type or with another sign of zero"
    return (
        f"differs by at most {largest:.3g}" if isfinite(largest) else "one has NaN or infinity where the other has not"
    )
