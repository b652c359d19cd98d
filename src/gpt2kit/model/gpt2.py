"""GPT-2, the mathematics only: token ids in, logits out. No files, no text, no devices.

Shape letters used in names here:
    B batch   T new positions   S all positions seen   D width   H heads   K head width   V vocabulary
Source: Radford et al. 2019 and github.com/openai/gpt-2/src/model.py; where we differ, a comment says why.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2kit.config.model import ModelConfig
from gpt2kit.model.kv_cache import CacheView, LayerCache


class Attention(nn.Module):
    """Every position looks at itself and at those before it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.scale = config.heads, config.attention_scale(layer)
        self.c_attn = nn.Linear(config.width, 3 * config.width)
        self.c_proj = nn.Linear(config.width, config.width)

    def forward(self, x_BTD: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Mix positions; `cache` holds the keys and values of earlier ones and keeps the new."""
        q_BTD, k_BTD, v_BTD = self.c_attn(x_BTD).chunk(3, dim=-1)
        q_BHTK, k_BHTK, v_BHTK = (self._split_heads(z) for z in (q_BTD, k_BTD, v_BTD))
        if cache is None:
            y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True, scale=self.scale)
        else:
            k_BHSK, v_BHSK, mask_B1TS = cache.append(k_BHTK, v_BHTK)
            y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=mask_B1TS, scale=self.scale)
        return cast(Tensor, self.c_proj(y_BHTK.transpose(1, 2).flatten(2)))

    def _split_heads(self, z_BTD: Tensor) -> Tensor:
        return z_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MLP(nn.Module):
    """Every position by itself: wider, bent, narrower."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.c_fc = nn.Linear(config.width, config.inner_width)
        self.c_proj = nn.Linear(config.inner_width, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform each position."""
        inner_BTI = self.c_fc(x_BTD)
        if self.activation == "relu":
            return cast(Tensor, self.c_proj(F.relu(inner_BTI)))
        # GPT-2 was trained with the tanh form; the exact form shifts every logit a little.
        approximate = "tanh" if self.activation == "gelu_tanh" else "none"
        return cast(Tensor, self.c_proj(F.gelu(inner_BTI, approximate=approximate)))


class Block(nn.Module):
    """One layer: attention, then MLP, each on a normalised copy and added back."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Transform all positions."""
        x_BTD = x_BTD + self.attn(self.ln_1(x_BTD), cache)
        return cast(Tensor, x_BTD + self.mlp(self.ln_2(x_BTD)))


class GPT2(nn.Module):
    """The whole network. Parameter names are the checkpoint's canonical names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.width)
        self.wpe = nn.Embedding(config.window, config.width)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.lm_head = None if config.tied_head else nn.Linear(config.width, config.vocab_size, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, V) of whole sequences of at most `window` ids."""
        return self.head(self.hidden(ids_BT))

    def hidden(self, ids_BT: Tensor, cache: CacheView | None = None) -> Tensor:
        """The last hidden state (B, T, D), normalised; with `cache`, of positions that follow those in it."""
        positions = torch.arange(ids_BT.size(1), device=ids_BT.device) if cache is None else cache.positions_BT
        x_BTD = self.wte(ids_BT) + self.wpe(positions)
        for layer, block in enumerate(self.h):
            x_BTD = block(x_BTD, None if cache is None else cache.layer(layer))
        return cast(Tensor, self.ln_f(x_BTD))

    def head(self, x_BTD: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., D)."""
        return F.linear(x_BTD, self.wte.weight if self.lm_head is None else self.lm_head.weight)
