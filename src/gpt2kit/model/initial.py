"""A model before it has learnt anything: GPT-2's random weights, made when they are read.

Source: Radford et al. 2019, section 2.3, and github.com/openai/gpt-2/src/model.py: matrices and token embedding
N(0, 0.02), positions N(0, 0.01), biases 0, gains 1; projections into the residual stream are divided by the square
root of their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from gpt2kit.checkpoint import Checkpoint, LazyTensor, tensor_shapes
from gpt2kit.config.model import ModelConfig


def initial_checkpoint(config: ModelConfig, tokenizer_files: Mapping[str, bytes], seed: int) -> Checkpoint:
    """A checkpoint of random weights. The same seed gives the same weights on every machine."""
    tensors = {
        name: LazyTensor(name, "float32", shape, partial(_draw, config, name, shape, seed, number))
        for number, (name, shape) in enumerate(tensor_shapes(config).items())
    }
    return Checkpoint(config, tensors, tokenizer_files, f"random weights of seed {seed}")


def _draw(config: ModelConfig, name: str, shape: tuple[int, ...], seed: int, number: int) -> np.ndarray:
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if ".ln_" in f".{name}":
        return np.ones(shape, np.float32)
    spread = 0.01 if name == "wpe.weight" else 0.02
    if name.endswith("c_proj.weight"):
        spread /= (2 * config.layers) ** 0.5
    draws = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
    return draws.standard_normal(shape, dtype=np.float32) * np.float32(spread)
