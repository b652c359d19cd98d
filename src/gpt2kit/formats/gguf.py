"""The format "gguf": a GPT-2 as llama.cpp keeps it, one file with its tokenizer, or a directory that holds one.

Settings: general.architecture = "gpt2"; gpt2.block_count, .context_length, .embedding_length, .feed_forward_length,
    .attention.head_count, .attention.layer_norm_epsilon; tokenizer.ggml.model = "gpt2", .pre = "gpt-2", .tokens (as
    vocab.json spells them, in order of id), .token_type, .merges ("left right"), .eos_token_id, ...
    Without a vocabulary tokenizer.ggml.model = "no_vocab", and gpt2.vocab_size, which the tokens tell otherwise.
Tensors: token_embd, position_embd, output_norm, blk.N.(attn_norm, attn_qkv, attn_output, ffn_norm, ffn_up, ffn_down);
    output.weight only where the head is not the embedding. Matrices stand as [out, in]; vectors and positions are F32.
llama.cpp computes gelu_tanh and scales attention in the ordinary way: another GPT-2 would be another model there, so it
is not written.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from gpt2kit.checkpoint import Checkpoint, FloatType, LazyTensor, check_tensors
from gpt2kit.errors import ConfigError, FormatError, WeightMismatch
from gpt2kit.formats import gguf_file
from gpt2kit.formats.gguf_blocks import PLAIN, Q4_0, Q8_0, BlockKind
from gpt2kit.formats.gguf_file import StoredTensor, TypedValue, is_gguf
from gpt2kit.formats.shapes import config_from_shapes
from gpt2kit.formats.state_dict import HEAD, hold_the_same
from gpt2kit.progress import Report
from gpt2kit.tokenizer.open import holds_vocabulary
from gpt2kit.tokenizer.vocabulary import END, read_vocabulary

FILE, SUFFIX = "model.gguf", ".gguf"
ROUNDED = {"q8_0": Q8_0, "q4_0": Q4_0}
"""Types beyond those of numbers that it is written with."""
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "BF16": 32}  # what llama.cpp calls a file of mostly this kind
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of tokens
PARTS = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
WHOLES = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
OURS = {theirs: ours for ours, theirs in (PARTS | WHOLES).items()}


@dataclass(frozen=True)
class BlockTensor(LazyTensor):
    """A tensor that GGUF keeps, or will keep, in blocks; read, it is what they mean."""

    kind: BlockKind = field(kw_only=True)
    rows: Callable[[], np.ndarray] = field(kw_only=True, repr=False, compare=False)
    """The blocks, uint8, shape (outputs, bytes a row)."""

    @property
    def storage(self) -> str:
        """What its values are kept as."""
        return self.kind.name.lower()


def sniff(path: Path) -> bool:
    """Whether `path` is such a file, or a directory with one."""
    if path.is_file():
        return path.suffix == SUFFIX or is_gguf(path)
    return path.is_dir() and any(path.glob(f"*{SUFFIX}"))


def read(path: Path, *, step: int | None = None) -> Checkpoint:
    """The checkpoint in the file `path`, or in the only such file of a directory."""
    file = path if path.is_file() else _only_file(path)
    settings, stored = gguf_file.open_file(file)
    if (architecture := settings.get("general.architecture")) != "gpt2":
        raise FormatError(file, None, f"holds a model of the architecture {architecture!r:.80}; expected 'gpt2'")
    if (parts := settings.get("split.count", 1)) != 1:
        raise FormatError(file, None, f"one of {parts} parts; join them first: llama-gguf-split --merge")
    tensors = {(name := _our_name(theirs)): _tensor(name, found) for theirs, found in stored.items()}
    config = config_from_shapes(
        tensors, file, "gpt2.attention.head_count", _whole(settings, "attention.head_count", file)
    )
    told = {"block_count": config.layers, "context_length": config.window, "embedding_length": config.width}
    for name, found_value in told.items():
        if (value := _whole(settings, name, file)) != found_value:
            raise WeightMismatch(f"{file}: gpt2.{name} is {value}, but the tensors are of {found_value}")
    epsilon = settings.get("gpt2.attention.layer_norm_epsilon", config.norm_epsilon)
    try:
        # Of the decimals that become this float32, the shortest is what was meant.
        config = replace(config, norm_epsilon=float(str(np.float32(epsilon))))
    except (ConfigError, TypeError, ValueError) as error:
        raise FormatError(file, None, f"gpt2.attention.layer_norm_epsilon: {error}") from None
    if not config.tied_head and "wte.weight" in tensors and hold_the_same(tensors[HEAD], tensors["wte.weight"]):
        config = replace(config, tied_head=True)  # earlier converters wrote the embedding twice
        del tensors[HEAD]
    checkpoint = Checkpoint(config, tensors, _tokenizer_files(settings, file), str(path), step)
    check_tensors(checkpoint)
    return checkpoint


def stored(checkpoint: Checkpoint, dtype: str | None) -> Checkpoint:
    """The same with its tensors as they will be written: matrices as `dtype`, or as they are; others as float32."""
    tensors = {
        name: _stored(tensor, dtype) if _is_matrix(name, tensor) else tensor.stored_as("float32")
        for name, tensor in checkpoint.tensors.items()
    }
    if whole := [
        name
        for name, tensor in tensors.items()
        if dtype in ROUNDED and _is_matrix(name, tensor) and not isinstance(tensor, BlockTensor)
    ]:
        warnings.warn(
            f"{len(whole)} matrices, such as {whole[0]}, stay float32: blocks of 32 do not divide their rows",
            stacklevel=2,
        )
    return replace(checkpoint, tensors=tensors)


def write(checkpoint: Checkpoint, path: Path, report: Report) -> None:
    """Write the file `path`, or, unless that ends in .gguf, a directory with it. Raises ConfigError."""
    config = checkpoint.config
    if config.activation != "gelu_tanh" or not config.scale_attention or config.scale_attention_by_layer:
        raise ConfigError(
            f"llama.cpp runs GPT-2 with gelu_tanh and attention scaled by the width of a head; {checkpoint.origin} "
            "wants it otherwise, and would be another model there"
        )
    tensors = {_their_name(name): _written(name, tensor) for name, tensor in checkpoint.tensors.items()}
    mostly = tensors["blk.0.attn_qkv.weight"][0].name
    settings = {
        "general.architecture": TypedValue(gguf_file.STRING, "gpt2"),
        "gpt2.block_count": TypedValue(gguf_file.U32, config.layers),
        "gpt2.context_length": TypedValue(gguf_file.U32, config.window),
        "gpt2.embedding_length": TypedValue(gguf_file.U32, config.width),
        "gpt2.feed_forward_length": TypedValue(gguf_file.U32, config.inner_width),
        "gpt2.attention.head_count": TypedValue(gguf_file.U32, config.heads),
        "gpt2.attention.layer_norm_epsilon": TypedValue(gguf_file.F32, config.norm_epsilon),
        "general.quantization_version": TypedValue(gguf_file.U32, 2),
    }
    if mostly in FILE_TYPES:
        settings["general.file_type"] = TypedValue(gguf_file.U32, FILE_TYPES[mostly])
    settings |= _tokenizer_settings(checkpoint)
    if path.suffix != SUFFIX:
        path.mkdir(parents=True, exist_ok=True)
        path = path / FILE
    gguf_file.write_file(settings, tensors, path, report)


# --- tensors ---


def _only_file(directory: Path) -> Path:
    found = sorted(directory.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:4])
        raise FormatError(directory, None, f"holds {len(found)} GGUF files; name one of them: {names}")
    return found[0]


def _our_name(theirs: str) -> str:
    part, _, kind = theirs.rpartition(".")
    if part.startswith("blk."):
        _, number, part = (*part.split(".", 2), "")[:3]
        return f"h.{number}.{OURS.get(part, part)}.{kind}"
    return f"{OURS.get(part, part)}.{kind}"


def _their_name(ours: str) -> str:
    part, _, kind = ours.rpartition(".")
    if part.startswith("h."):
        _, number, part = part.split(".", 2)
        return f"blk.{number}.{PARTS[part]}.{kind}"
    return f"{WHOLES[part]}.{kind}"


def _is_matrix(name: str, tensor: LazyTensor) -> bool:
    return len(tensor.shape) == 2 and name != "wpe.weight"


def _is_turned(name: str) -> bool:
    """Whether this matrix is [in, out] in a checkpoint, and [out, in] in GGUF."""
    return name.startswith("h.")


def _tensor(name: str, found: StoredTensor) -> LazyTensor:
    turned = len(found.shape) == 2 and _is_turned(name)
    shape = found.shape[::-1] if turned else found.shape

    def load() -> np.ndarray:
        values = found.kind.values(found.rows(), found.shape)
        return values.T if turned else values

    if found.kind.stored:
        return LazyTensor(name, found.kind.dtype, shape, load)
    return BlockTensor(name, "float32", shape, load, kind=found.kind, rows=found.rows)


def _stored(tensor: LazyTensor, dtype: str | None) -> LazyTensor:
    if dtype in ROUNDED:
        return _rounded(tensor, ROUNDED[dtype])
    if dtype is None:
        return tensor if tensor.dtype in PLAIN else tensor.stored_as("float32")
    meant = LazyTensor(tensor.name, tensor.dtype, tensor.shape, tensor.load)  # what blocks mean, if there are some
    return meant.stored_as(next(each for each in get_args(FloatType) if each == dtype))


def _rounded(tensor: LazyTensor, kind: BlockKind) -> LazyTensor:
    """In blocks; the embedding in those of 8 bits, for its rows are a head as well, which errs more with fewer."""
    kind = Q8_0 if kind is Q4_0 and not _is_turned(tensor.name) else kind
    inputs = tensor.shape[0] if _is_turned(tensor.name) else tensor.shape[1]
    if isinstance(tensor, BlockTensor) and tensor.kind is kind:
        return tensor
    if inputs % kind.block:
        return tensor.stored_as("float32")

    def rows() -> np.ndarray:
        values = tensor.read_float32()
        try:
            return kind.rounded(np.ascontiguousarray(values.T if _is_turned(tensor.name) else values))
        except ConfigError as error:
            raise ConfigError(f"{tensor.name} {error}") from None

    def load() -> np.ndarray:
        values = kind.values(rows(), tensor.shape[::-1] if _is_turned(tensor.name) else tensor.shape)
        return values.T if _is_turned(tensor.name) else values

    return BlockTensor(tensor.name, "float32", tensor.shape, load, kind=kind, rows=rows)


def _written(name: str, tensor: LazyTensor) -> tuple[BlockKind, tuple[int, ...], Callable[[], np.ndarray]]:
    turned = len(tensor.shape) == 2 and _is_turned(name)
    shape = tensor.shape[::-1] if turned else tensor.shape
    if isinstance(tensor, BlockTensor):
        return tensor.kind, shape, tensor.rows
    return PLAIN[tensor.dtype], shape, lambda: tensor.read().T if turned else tensor.read()


# --- settings ---


def _whole(settings: Mapping[str, Any], name: str, file: Path) -> int:
    value = settings.get(f"gpt2.{name}")
    if type(value) is not int:
        raise FormatError(file, None, f"gpt2.{name} is {value!r:.80}; expected a whole number")
    return value


def _tokenizer_files(settings: Mapping[str, Any], file: Path) -> dict[str, bytes]:
    """The vocabulary as files that a tokenizer is read from."""
    model = settings.get("tokenizer.ggml.model", "no_vocab")
    if model in ("no_vocab", "none"):
        return {}
    if model != "gpt2":
        warnings.warn(f"{file}: its tokenizer is of the kind {model!r:.80}, not GPT-2's, and is not read", stacklevel=3)
        return {}
    if (pattern := settings.get("tokenizer.ggml.pre", "gpt-2")) not in ("gpt-2", "default"):
        warnings.warn(
            f"{file}: texts were split by the rule {pattern!r:.80}; they are split by GPT-2's now", stacklevel=3
        )
    tokens, merges = (settings.get(f"tokenizer.ggml.{name}", ()) for name in ("tokens", "merges"))
    kinds = settings.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if not all(isinstance(part, list) for part in (tokens, merges, kinds)) or len(kinds) != len(tokens):
        raise FormatError(
            file, None, "tokenizer.ggml: expected lists of tokens and merges, and a token_type for each token"
        )
    numbered = [(token, id, kind) for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != UNUSED]
    if not all(isinstance(word, str) for word in (*tokens, *merges)):
        raise FormatError(file, None, "tokenizer.ggml: tokens and merges must be strings")
    added = {token: id for token, id, kind in numbered if kind in (CONTROL, USER_DEFINED) and token != END}
    plain = {token: id for token, id, kind in numbered if token not in added}
    files = {
        "vocab.json": json.dumps(plain).encode(),
        "merges.txt": "".join(f"{line}\n" for line in ("#version: 0.2", *merges)).encode(),
    }
    return files | ({"added_tokens.json": json.dumps(added).encode()} if added else {})


def _tokenizer_settings(checkpoint: Checkpoint) -> dict[str, TypedValue]:
    prefix = "tokenizer.ggml"
    if not holds_vocabulary(checkpoint.tokenizer_files):
        if names := ", ".join(checkpoint.tokenizer_files):
            warnings.warn(
                f"{checkpoint.origin}: left behind, for llama.cpp's GPT-2 has no such words: {names}", stacklevel=3
            )
        return {
            f"{prefix}.model": TypedValue(gguf_file.STRING, "no_vocab"),
            "gpt2.vocab_size": TypedValue(gguf_file.U32, checkpoint.config.vocab_size),
        }
    vocabulary = read_vocabulary(checkpoint.tokenizer_files, checkpoint.origin)
    tokens = [f"[PAD{id}]" for id in range(checkpoint.config.vocab_size)]
    kinds = [UNUSED] * len(tokens)
    for token, id in vocabulary.ids.items():
        if id >= len(tokens):
            raise WeightMismatch(
                f"{checkpoint.origin}: the token {token!r} has the id {id}, and the model {len(tokens)} tokens"
            )
        tokens[id], kinds[id] = token, CONTROL if token in vocabulary.special else NORMAL
    end = TypedValue(gguf_file.U32, vocabulary.end_id)
    return {
        f"{prefix}.model": TypedValue(gguf_file.STRING, "gpt2"),
        f"{prefix}.pre": TypedValue(gguf_file.STRING, "gpt-2"),
        f"{prefix}.tokens": TypedValue(gguf_file.STRING, tokens),
        f"{prefix}.token_type": TypedValue(gguf_file.I32, kinds),
        f"{prefix}.merges": TypedValue(gguf_file.STRING, [f"{left} {right}" for left, right in vocabulary.merges]),
        f"{prefix}.bos_token_id": end,
        f"{prefix}.eos_token_id": end,
        f"{prefix}.unknown_token_id": end,
        f"{prefix}.add_bos_token": TypedValue(gguf_file.BOOL, False),
    }
