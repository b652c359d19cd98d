"""The names under which PyTorch's modules save a GPT-2, and the canonical ones.

GPT2LMHeadModel saves transformer.wte.weight, ..., lm_head.weight; GPT2Model the same without "transformer."; trainers
put words of their own before all (module., model., _orig_mod.). What else there may be:
    h.N.attn.bias, h.N.attn.masked_bias   causal masks, no weights
    multiple_choice_head., v_head.        heads beside a whole language model: left out, and a warning says so
    score., classifier., qa_outputs.      heads in place of a language model's: refused
The oldest files end names in .w, .g and .b, and call the head lm_head.decoder.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import WeightMismatch

HEAD, EMBEDDING = "lm_head.weight", re.compile(r"(.*\.)?wte\.(weight|w)")
MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
OLDEST = re.compile(r"\.([wgb])$")
SECOND_HEADS, OTHER_HEADS = ("multiple_choice_head.", "v_head."), ("score.", "classifier.", "qa_outputs.")
COMPARED_ROWS = 256  # at once


def holds_weights(names: Iterable[object]) -> bool:
    """Whether a token embedding is among these names."""
    return any(isinstance(name, str) and EMBEDDING.fullmatch(name) for name in names)


def canonical(found: Mapping[str, LazyTensor], origin: Path) -> dict[str, LazyTensor]:
    """Stored tensors by canonical name, the head too; less masks and second heads. Raises WeightMismatch."""
    inner = _prefix(found)
    outer = inner.removesuffix("transformer.")
    tensors, left_out = {}, []
    for stored_name, tensor in found.items():
        name = stored_name.removeprefix(inner if stored_name.startswith(inner) else outer)
        name = OLDEST.sub(lambda match: f".{'bias' if match[1] == 'b' else 'weight'}", name)
        name = name.replace("lm_head.decoder.", "lm_head.")
        if name.startswith(OTHER_HEADS):
            raise WeightMismatch(f"{origin}: {stored_name} is the head of a classifier; expected a language model")
        if name.startswith(SECOND_HEADS):
            left_out.append(stored_name)
        elif name in tensors:
            raise WeightMismatch(f"{origin}: {stored_name} is a second {name}; which of them counts is not told")
        elif not MASK.fullmatch(name):
            tensors[name] = replace(tensor, name=name)
    if left_out:
        warnings.warn(f"{origin}: left out, for only the language model is read: {', '.join(left_out)}", stacklevel=2)
    return tensors


def settle_head(
    config: ModelConfig, tensors: Mapping[str, LazyTensor], origin: Path
) -> tuple[ModelConfig, dict[str, LazyTensor]]:
    """The same less the head, where it is the embedding stored twice; where it is another one, it counts."""
    head, embedding = tensors.get(HEAD), tensors.get("wte.weight")
    if head is None or not config.tied_head:
        return config, dict(tensors)
    if embedding is not None and not hold_the_same(head, embedding):
        warnings.warn(
            f"{origin}: the head is said to be the token embedding, but {HEAD} holds other values, which count",
            stacklevel=2,
        )
        return replace(config, tied_head=False), dict(tensors)
    return config, {name: tensor for name, tensor in tensors.items() if name != HEAD}


def stored_tensors(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Canonical tensors under the names that transformers' GPT2LMHeadModel saves."""
    return {name if name == HEAD else f"transformer.{name}": tensor for name, tensor in tensors.items()}


def _prefix(names: Iterable[str]) -> str:
    """What stands before the name of the token embedding, and so before all others."""
    prefixes = [match[1] or "" for name in names if (match := EMBEDDING.fullmatch(name))]
    return prefixes[0] if len(prefixes) == 1 else "transformer."


def hold_the_same(a: LazyTensor, b: LazyTensor) -> bool:
    """Whether two tensors are of one type, and equal bit for bit."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    rows_a, rows_b = a.read(), b.read()
    parts = (slice(begin, begin + COMPARED_ROWS) for begin in range(0, a.shape[0], COMPARED_ROWS))
    return all(rows_a[part].tobytes() == rows_b[part].tobytes() for part in parts)
