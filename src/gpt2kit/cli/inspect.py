"""gpt2 inspect: what a checkpoint is made of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show what a checkpoint is made of."""

    model: Annotated[str, Positional]
    """A known name (124M), a directory, a file, or a run (run1, run1@2000, run1@best)."""
    tensors: FlagCreatePairsOff[bool] = False
    """Read and list every tensor too, with its mean and deviation; NaN and infinite values are pointed out."""

    def __call__(self) -> int:
        """Print the configuration, and the tensors if asked."""
        from gpt2kit.cli.terminal import drawing
        from gpt2kit.jobs.inspect import tensor_figures
        from gpt2kit.resolve import open_checkpoint

        checkpoint = open_checkpoint(self.model)
        size_bytes = sum(len(content) for content in checkpoint.tokenizer_files.values())
        print(f"origin       {checkpoint.origin}" + ("" if checkpoint.step is None else f", step {checkpoint.step:,}"))
        print(f"parameters   {checkpoint.parameter_count():,} in {len(checkpoint.tensors)} tensors")
        print(f"stored as    {', '.join(sorted({tensor.dtype for tensor in checkpoint.tensors.values()}))}")
        print(f"tokenizer    {', '.join(checkpoint.tokenizer_files) or 'none'} ({size_bytes:,} bytes)")
        for field in fields(checkpoint.config):
            print(f"{field.name:<26} {getattr(checkpoint.config, field.name)}")
        if not self.tensors:
            return 0
        with drawing() as report:
            figures = tensor_figures(checkpoint, report)
        for tensor in figures:
            broken = f"   {tensor.not_finite} values are NaN or infinite" if tensor.not_finite else ""
            shape = "x".join(map(str, tensor.shape))
            print(
                f"{tensor.name:<28}{tensor.dtype:<10}{shape:<14}{tensor.mean:>10.4f} ± {tensor.deviation:.4f}{broken}"
            )
        return 0
