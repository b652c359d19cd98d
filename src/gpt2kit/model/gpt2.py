"""GPT-2, the mathematics only: token ids in, logits out. No files, no text, no devices.

Shape letters used in names here:
    B batch   T positions   D width   H heads   K head width   I inner width   V vocabulary
With a cache B is 1: the new positions of all its sequences stand in one line, so that all weights are read once.
Source: Radford et al. 2019 and github.com/openai/gpt-2/src/model.py; where we differ, a comment says why.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2kit.config.model import ModelConfig
from gpt2kit.model.kv_cache import CacheView, LayerCache

# torch's fused attention in bfloat16 on a CPU is four times slower than plain products on windows this short, backward.
SHORT_WINDOW = 256


class Attention(nn.Module):
    """Every position looks at itself and at those before it."""

    def __init__(self, config: ModelConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale, self.dropout = config.heads, config.attention_scale(layer), dropout
        self.c_attn = nn.Linear(config.width, 3 * config.width)
        self.c_proj = nn.Linear(config.width, config.width)

    def forward(self, x_BTD: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Mix positions; `cache` holds the keys and values of earlier ones and keeps the new."""
        q_BTD, k_BTD, v_BTD = self.c_attn(x_BTD).chunk(3, dim=-1)
        q_BHTK, k_BHTK, v_BHTK = (self._split_heads(z) for z in (q_BTD, k_BTD, v_BTD))
        if cache is None:
            y_BHTK = self._attend(q_BHTK, k_BHTK, v_BHTK)
        else:
            y_BHTK = cache.attend(q_BHTK, k_BHTK, v_BHTK, self.scale)
        return cast(Tensor, self.c_proj(y_BHTK.transpose(1, 2).flatten(2)))

    def _attend(self, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if q_BHTK.dtype == torch.bfloat16 and q_BHTK.device.type == "cpu" and q_BHTK.size(2) <= SHORT_WINDOW:
            return plain_attention(q_BHTK, k_BHTK, v_BHTK, self.scale, dropout)
        return F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, dropout_p=dropout, is_causal=True, scale=self.scale
        )

    def _split_heads(self, z_BTD: Tensor) -> Tensor:
        return z_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def plain_attention(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, scale: float, dropout: float) -> Tensor:
    """Causal attention by plain products: what torch's fused kernels compute, with the scores in memory."""
    heads_N, length = q_BHTK.shape[:2], q_BHTK.size(2)
    q_NTK, k_NTK, v_NTK = (z.flatten(0, 1) for z in (q_BHTK, k_BHTK, v_BHTK))
    later_TT = torch.full((length, length), -torch.inf, dtype=q_NTK.dtype, device=q_NTK.device).triu(1)
    scores_NTT = torch.baddbmm(later_TT, q_NTK, k_NTK.transpose(1, 2), alpha=scale)
    weights_NTT = F.dropout(scores_NTT.softmax(-1), dropout)
    return (weights_NTT @ v_NTK).unflatten(0, heads_N)


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

    def __init__(self, config: ModelConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.attn = Attention(config, layer, dropout)
        self.ln_2 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Transform all positions."""
        x_BTD = x_BTD + self.drop(self.attn(self.ln_1(x_BTD), cache))
        return cast(Tensor, x_BTD + self.drop(self.mlp(self.ln_2(x_BTD))))


class GPT2(nn.Module):
    """The whole network. Parameter names are the checkpoint's canonical names.

    In training mode, the share `dropout` of all activations is dropped where OpenAI's training did so; the random
    numbers are torch's global ones, which the trainer seeds.
    """

    block: type[Block] = Block
    """What a layer is made of."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        """Whether training keeps a layer's input only, and thinks again when it learns: less memory, a third slower."""
        self.wte = nn.Embedding(config.vocab_size, config.width)
        self.wpe = nn.Embedding(config.window, config.width)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(self.block(config, layer, dropout) for layer in range(config.layers))
        self.ln_f: nn.Module = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.lm_head = None if config.tied_head else nn.Linear(config.width, config.vocab_size, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, V) of whole sequences of at most `window` ids."""
        return self.head(self.hidden(ids_BT))

    def hidden(self, ids_BT: Tensor, cache: CacheView | None = None) -> Tensor:
        """The last hidden state (B, T, D), normalised; with `cache`, of the new positions in its rows (B is 1)."""
        positions_T = torch.arange(ids_BT.size(1), device=ids_BT.device) if cache is None else cache.positions_N
        x_BTD = self.embedded(ids_BT, positions_T)
        for layer, block in enumerate(self.h):
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(block, x_BTD, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, None if cache is None else cache.layer(layer))
        return cast(Tensor, self.ln_f(x_BTD))

    def embedded(self, ids_BT: Tensor, positions_T: Tensor) -> Tensor:
        """What the first layer gets."""
        return cast(Tensor, self.drop(self.wte(ids_BT) + self.wpe(positions_T)))

    def head(self, x_BTD: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., D)."""
        return F.linear(x_BTD, self.head_weight)

    @property
    def head_weight(self) -> nn.Parameter:
        """The matrix (V, D) that makes logits: the token embedding, where the head is tied to it."""
        return cast(nn.Parameter, self.wte.weight if self.lm_head is None else self.lm_head.weight)
