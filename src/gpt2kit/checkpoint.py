"""A model at rest: its configuration, its tensors by canonical name (unread), its tokenizer files, where it came from.

Canonical names are OpenAI's as kept on the Hugging Face hub; matrices stand as [in, out]:
    wte.weight [V, D]   wpe.weight [window, D]   h.N.ln_1.weight h.N.ln_1.bias [D]
    h.N.attn.c_attn.weight [D, 3D] .bias [3D]    h.N.attn.c_proj.weight [D, D] .bias [D]
    h.N.ln_2.weight h.N.ln_2.bias [D]            h.N.mlp.c_fc.weight [D, I] .bias [I]
    h.N.mlp.c_proj.weight [I, D] .bias [D]       ln_f.weight ln_f.bias [D]
    lm_head.weight [V, D], only where the head is not tied
A GPT2-ML has ln_e.weight and ln_e.bias [D], behind the embeddings, and no ln_f; its ln_1 is that of the MLP, its ln_2
ends the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError, WeightMismatch

FloatType = Literal["float32", "float16", "bfloat16"]
FLOATS = ("float64", "float32", "float16", "bfloat16")

CHUNK = 2**16  # values converted or compared at once: the copies in between stay in the cache
# What a tokenizer is read from, whatever the format beside it.
TOKENIZER_FILES = (
    *("encoder.json", "vocab.bpe", "vocab.json", "merges.txt", "vocab.txt"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    "characters.json",
)


@dataclass(frozen=True)
class LazyTensor:
    """One tensor of a checkpoint. Nothing is read before `read()`."""

    name: str
    dtype: str
    """A numpy name ("float32", "float16", "int64"), or "bfloat16"."""
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray] = field(repr=False, compare=False)

    @property
    def storage(self) -> str:
        """What its values are kept as: more than `dtype` where a format rounds them in blocks."""
        return self.dtype

    @property
    def size_bytes(self) -> int:
        """What the values take."""
        return math.prod(self.shape) * (2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize)

    def read(self) -> np.ndarray:
        """The values, [in, out] for matrices, perhaps read-only; bfloat16 comes as a view on uint16."""
        return self.load()

    def read_float32(self) -> np.ndarray:
        """The values as float32, exact for every stored float type up to that width."""
        values = self.read()
        if self.dtype == "bfloat16":
            return _widened(values)
        return values.astype(np.float32, copy=False)

    def read_bytes(self) -> memoryview:
        """The values as files hold them: little-endian, the last axis first."""
        values = self.read()
        assert values.shape == self.shape, f"{self.name} promised {self.shape} and gave {values.shape}"
        values = np.asarray(values, values.dtype.newbyteorder("<"), order="C")
        assert values.nbytes == self.size_bytes, f"{self.name} promised {self.dtype} and gave {values.dtype}"
        return values.reshape(-1).view(np.uint8).data

    def stored_as(self, dtype: FloatType) -> LazyTensor:
        """The same tensor, rounded to `dtype` when it is read; a value beyond its range then raises ConfigError."""
        return self if dtype == self.dtype else replace(self, dtype=dtype, load=lambda: self._rounded(dtype))

    def _rounded(self, dtype: FloatType) -> np.ndarray:
        rounded = np.empty(self.shape, np.uint16 if dtype == "bfloat16" else dtype)
        exact, target = self.read().reshape(-1), rounded.reshape(-1)
        for begin in range(0, exact.size, CHUNK):
            part = slice(begin, begin + CHUNK)
            values = _widened(exact[part]) if self.dtype == "bfloat16" else exact[part]
            with np.errstate(over="ignore"):
                target[part] = to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype)
            narrow = _widened(target[part]) if dtype == "bfloat16" else target[part]
            if np.any(np.isinf(narrow) & np.isfinite(values)):
                raise ConfigError(f"{self.name} has values beyond the range of {dtype}; take a wider type")
        return rounded


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Floats rounded to the nearest bfloat16, ties to even, as bits in uint16; by way of float32."""
    values = values.astype(np.float32)
    bits = values.view(np.uint32)
    nearest = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    # Rounding could carry a NaN over to infinity; one bit of the fraction keeps it a NaN.
    return np.where(np.isnan(values), (bits >> 16).astype(np.uint16) | 0x40, nearest)


def _widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16, the upper half of a float32, as float32."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


@dataclass(frozen=True)
class Checkpoint:
    """A model at rest. Training, converting and serving meet only here."""

    config: ModelConfig
    tensors: Mapping[str, LazyTensor] = field(repr=False)
    tokenizer_files: Mapping[str, bytes] = field(repr=False)
    origin: str
    step: int | None = None
    adapters: tuple[str, ...] = ()
    """The directories of what is added to the base's tensors as they are read; `origin` names them after the base."""

    @property
    def base_origin(self) -> str:
        """Where the tensors are, without adapters."""
        return self.origin.removesuffix("".join(f"+{place}" for place in self.adapters))

    def parameter_count(self) -> int:
        """Learnt numbers in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    def stored_as(self, dtype: FloatType) -> Checkpoint:
        """The same model with every tensor as `dtype`, converted when it is read."""
        return replace(self, tensors={name: tensor.stored_as(dtype) for name, tensor in self.tensors.items()})


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every canonical name of a model of this shape, with its shape, in the order of the data's way through a GPT-2."""
    width, inner = config.width, config.inner_width
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, width),
        "wpe.weight": (config.window, width),
    }
    if config.architecture == "gpt2-ml":
        shapes["ln_e.weight"] = shapes["ln_e.bias"] = (width,)
    for layer in range(config.layers):
        for part, shape in (
            ("ln_1.weight", (width,)),
            ("ln_1.bias", (width,)),
            ("attn.c_attn.weight", (width, 3 * width)),
            ("attn.c_attn.bias", (3 * width,)),
            ("attn.c_proj.weight", (width, width)),
            ("attn.c_proj.bias", (width,)),
            ("ln_2.weight", (width,)),
            ("ln_2.bias", (width,)),
            ("mlp.c_fc.weight", (width, inner)),
            ("mlp.c_fc.bias", (inner,)),
            ("mlp.c_proj.weight", (inner, width)),
            ("mlp.c_proj.bias", (width,)),
        ):
            shapes[f"h.{layer}.{part}"] = shape
    if config.architecture == "gpt2":
        shapes["ln_f.weight"] = shapes["ln_f.bias"] = (width,)
    if not config.tied_head:
        shapes["lm_head.weight"] = (config.vocab_size, width)
    return shapes


def check_tensors(checkpoint: Checkpoint) -> None:
    """Raise WeightMismatch unless the tensors are exactly those that the configuration promises."""
    if checkpoint.config.layers > len(checkpoint.tensors):
        raise WeightMismatch(
            f"{checkpoint.origin}: the configuration asks for {checkpoint.config.layers} layers, but there are only "
            f"{len(checkpoint.tensors)} tensors"
        )
    if not any(name in checkpoint.tensors for name in ("wte.weight", "h.0.ln_1.weight")):
        names = ", ".join(list(checkpoint.tensors)[:3]) or "no tensors"
        raise WeightMismatch(f"{checkpoint.origin}: not the tensors of a GPT-2; it holds {names:.200}")
    expected = tensor_shapes(checkpoint.config)
    for name, shape in expected.items():
        found = checkpoint.tensors.get(name)
        if found is None:
            raise WeightMismatch(f"{checkpoint.origin}: tensor {name} is missing; the configuration asks for {shape}")
        if found.shape != shape:
            raise WeightMismatch(
                f"{checkpoint.origin}: {name} is {found.shape}, but the configuration asks for {shape}; "
                "the configuration belongs to another model"
            )
        if found.dtype not in FLOATS:
            raise WeightMismatch(f"{checkpoint.origin}: {name} is {found.dtype}; expected {', '.join(FLOATS)}")
    if surplus := sorted(set(checkpoint.tensors) - set(expected)):
        asked = f"; it asks for {checkpoint.config.layers} layers" if surplus[0].startswith("h.") else ""
        raise WeightMismatch(
            f"{checkpoint.origin}: {len(surplus)} tensors that the configuration does not know, such as "
            f"{surplus[0]}{asked}"
        )
