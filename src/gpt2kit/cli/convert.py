"""gpt2 convert: a checkpoint of one format into one of another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from gpt2kit.cli.options import size_in_bytes
from gpt2kit.errors import ConfigError

if TYPE_CHECKING:
    from gpt2kit.jobs.convert import Conversion

BY_SUFFIX = {".gguf": "gguf", ".onnx": "onnx"}


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn a model of one format into a model of another.

    Format, size and tokenizer are found from what is there; nothing needs to be renamed or edited. What was written
    is read again and compared before the new directory gets its name.
    """

    places: Annotated[tuple[str, ...], Positional, arg(metavar="SRC DST", help_behavior_hint="")] = ()
    """SRC: a known name (124M), a directory, a file, or a run (run1, run1@2000); DST: a new directory, or *.gguf.
    SRC may be BASE+ADAPTER: a model and the directory of an adapter of PEFT, which become one model."""
    to: Annotated[str | None, arg(metavar="safetensors|bin|h5|openai|gguf|nanogpt|onnx")] = None
    """The format to write. None is gguf or onnx where DST ends so, else safetensors."""
    dtype: Literal["unchanged", "float32", "float16", "bfloat16", "q8_0", "q4_0"] = "unchanged"
    """How to store the weights. Unchanged, they become float32 where the format holds nothing else. q8_0 and q4_0 are
    llama.cpp's, in gguf only."""
    shard_size: Annotated[str | None, arg(metavar="SIZE")] = None
    """Write several files of at most so much, such as 2GB; a larger tensor has one alone (safetensors and bin)."""
    step: int | None = None
    """Which step of a run that holds several; the newest if not given."""
    list: FlagCreatePairsOff[bool] = False
    """List the formats instead."""

    def __call__(self) -> int:
        """Convert, and say what was written and how equal it is."""
        if self.list:
            return _print_formats()
        if len(self.places) != 2:
            raise ConfigError(
                f"expected two places, SRC and DST, got {len(self.places)}; example: gpt2 convert 124M out"
            )
        from gpt2kit.cli.terminal import drawing
        from gpt2kit.jobs.convert import convert

        source, destination = self.places
        with drawing() as report:
            conversion = convert(
                source,
                destination,
                to=self.to or BY_SUFFIX.get(Path(destination).suffix, "safetensors"),
                dtype=None if self.dtype == "unchanged" else self.dtype,
                shard_bytes=None if self.shard_size is None else size_in_bytes(self.shard_size),
                step=self.step,
                report=report,
            )
        _print_conversion(conversion, Path(destination))
        return 0


def _print_formats() -> int:
    from gpt2kit.formats.registry import KNOWN

    width = max(len(format.name) for format in KNOWN) + 2
    for format in KNOWN:
        shards = ", in shards" if format.shards else ""
        print(f"{format.name:<{width}}{format.description}")
        written = f"read and written; stores {', '.join(format.dtypes)}{shards}" if format.dtypes else "read only"
        print(f"{'':<{width}}{written}")
    return 0


def _print_conversion(conversion: Conversion, destination: Path) -> None:
    checkpoint, difference = conversion.checkpoint, conversion.difference
    files = [file for file in destination.iterdir() if file.is_file()] if destination.is_dir() else [destination]
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    types = ", ".join(sorted({tensor.storage for tensor in checkpoint.tensors.values()}))
    print(
        f"{destination}: {conversion.format}, {checkpoint.parameter_count():,} parameters as {types}, "
        f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB in {count}"
    )
    if difference.bit_equal:
        print("read again: bit-equal to what was read")
    elif conversion.equal_argmax is None:
        print("read again: every value equal, in another type")
    else:
        print(
            f"read again: values differ by at most {difference.largest:.3g}; over a probe, both find the same token "
            f"likeliest at {conversion.equal_argmax:.1%} of the positions"
        )
    if checkpoint.tokenizer_files:
        print(f"to write with it: gpt2 generate --model {destination}")
    else:
        names = "encoder.json and vocab.bpe" if conversion.format == "openai" else "vocab.json and merges.txt"
        print(f"no vocabulary came along, for there was none; put {names} into {destination}")
