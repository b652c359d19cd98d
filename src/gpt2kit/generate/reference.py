"""The reference engine: numpy, no cache, obviously right, slow. The judge of every other engine.

Shape letters: T positions   D width   I inner width   H heads   K head width   V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.model import ModelConfig
from gpt2kit.generate.engine import Row

exact_erf = np.vectorize(math.erf, otypes=[np.float32])  # numpy has none


class ReferenceEngine:
    """Computes every sequence anew, alone, from its first id: nothing can go stale, and batches cannot matter."""

    exact_in_batches = True
    name = "reference"

    def __init__(
        self, checkpoint: Checkpoint, slots: int = 8, *, weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self.config: ModelConfig = checkpoint.config
        self.slots = slots
        self.capacity = slots * self.config.window
        # Who has less memory than the model brings weights that are read when they are asked for.
        held = {name: tensor.read_float32() for name, tensor in checkpoint.tensors.items()} if weights is None else {}
        self._weights = held if weights is None else weights
        self._ids: dict[int, list[int]] = {}

    def step(self, rows: Sequence[Row]) -> np.ndarray:
        """See Engine.step."""
        wanted = [np.empty((0, self.config.vocab_size), np.float32)]
        for row in rows:
            ids = self._ids.setdefault(row.slot, [])
            assert row.slot < self.slots, f"slot {row.slot} of {self.slots}"
            assert 0 < len(row.ids) <= self.config.window - len(ids), "a row must fit the window"
            ids.extend(row.ids)
            if row.logits != "none":
                hidden_TD = self._hidden(ids)
                wanted.append(self._head(hidden_TD[-1:] if row.logits == "last" else hidden_TD[-len(row.ids) :]))
        return np.concatenate(wanted)

    def truncate(self, slot: int, length: int) -> None:
        """See Engine.truncate."""
        self._ids[slot] = self._ids.get(slot, [])[:length]

    def share(self, source: int, target: int, length: int) -> None:
        """See Engine.share."""
        self._ids[target] = self._ids[source][:length]

    def close(self) -> None:
        """See Engine.close."""
        self._weights, self._ids = {}, {}

    def _hidden(self, ids: Sequence[int]) -> np.ndarray:
        x_TD = self._weights["wte.weight"][list(ids)] + self._weights["wpe.weight"][: len(ids)]
        if self.config.architecture == "gpt2-ml":
            return self._hidden_of_gpt2_ml(self._norm(x_TD, "ln_e"))
        for layer in range(self.config.layers):
            x_TD = x_TD + self._attention(self._norm(x_TD, f"h.{layer}.ln_1"), layer)
            x_TD = x_TD + self._mlp(self._norm(x_TD, f"h.{layer}.ln_2"), layer)
        return self._norm(x_TD, "ln_f")

    def _hidden_of_gpt2_ml(self, x_TD: np.ndarray) -> np.ndarray:
        """Nothing is normalised before attention, and every layer's end is. Source: model/gpt2_ml.py."""
        for layer in range(self.config.layers):
            x_TD = x_TD + self._attention(x_TD, layer)
            x_TD = self._norm(x_TD + self._mlp(self._norm(x_TD, f"h.{layer}.ln_1"), layer), f"h.{layer}.ln_2")
        return x_TD

    def _attention(self, x_TD: np.ndarray, layer: int) -> np.ndarray:
        length, width = x_TD.shape
        qkv_T3HK = self._linear(x_TD, f"h.{layer}.attn.c_attn").reshape(length, 3, self.config.heads, -1)
        q_HTK, k_HTK, v_HTK = qkv_T3HK.transpose(1, 2, 0, 3)
        scores_HTT = q_HTK @ k_HTK.transpose(0, 2, 1) * np.float32(self.config.attention_scale(layer))
        future_TT = np.triu(np.ones((length, length), bool), k=1)
        scores_HTT = np.where(future_TT, np.float32(-np.inf), scores_HTT)
        weights_HTT = np.exp(scores_HTT - scores_HTT.max(axis=-1, keepdims=True))
        weights_HTT /= weights_HTT.sum(axis=-1, keepdims=True)
        y_TD = (weights_HTT @ v_HTK).transpose(1, 0, 2).reshape(length, width)
        return self._linear(y_TD, f"h.{layer}.attn.c_proj")

    def _mlp(self, x_TD: np.ndarray, layer: int) -> np.ndarray:
        inner_TI = self._linear(x_TD, f"h.{layer}.mlp.c_fc")
        return self._linear(self._activate(inner_TI), f"h.{layer}.mlp.c_proj")

    def _activate(self, x_TI: np.ndarray) -> np.ndarray:
        if self.config.activation == "relu":
            return np.maximum(x_TI, 0)
        if self.config.activation == "gelu_exact":
            return np.float32(0.5) * x_TI * (1 + exact_erf(x_TI / np.float32(2**0.5)))
        # The tanh form GPT-2 was trained with: Hendrycks and Gimpel 2016, section 2.
        bent_TI = np.tanh(np.float32((2 / np.pi) ** 0.5) * (x_TI + np.float32(0.044715) * x_TI**3))
        return np.float32(0.5) * x_TI * (1 + bent_TI)

    def _head(self, x_TD: np.ndarray) -> np.ndarray:
        return x_TD @ self._weights["wte.weight" if self.config.tied_head else "lm_head.weight"].T

    def _linear(self, x_TD: np.ndarray, name: str) -> np.ndarray:
        return x_TD @ self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _norm(self, x_TD: np.ndarray, name: str) -> np.ndarray:
        centred_TD = x_TD - x_TD.mean(axis=-1, keepdims=True)
        variance_T1 = (centred_TD**2).mean(axis=-1, keepdims=True)
        normal_TD = centred_TD / np.sqrt(variance_T1 + np.float32(self.config.norm_epsilon))
        return normal_TD * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
