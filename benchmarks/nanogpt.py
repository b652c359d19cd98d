"""The peer of the training benchmarks: github.com/karpathy/nanoGPT, model.py, without what no benchmark uses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class LayerNorm(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Any) -> Any:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool, gelu: str) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = LayerNorm(width, bias), LayerNorm(width, bias)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width, bias), nn.Linear(width, width, bias)
        self.c_fc, self.mlp_proj = nn.Linear(width, 4 * width, bias), nn.Linear(4 * width, width, bias)
        self.gelu = nn.GELU(gelu)

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.ln_1(x))
        return x + self.mlp_proj(self.gelu(self.c_fc(self.ln_2(x))))

    def attention(self, x: Any) -> Any:
        batch, length, width = x.size()
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (z.view(shape).transpose(1, 2) for z in self.c_attn(x).split(width, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(batch, length, width))


class GPT(nn.Module):
    """`gelu` is "none" in nanoGPT; GPT-2's own is "tanh", which takes torch three times as long on a CPU."""

    def __init__(
        self, vocab_size: int, window: int, width: int, layers: int, heads: int, bias: bool, gelu: str = "none"
    ) -> None:
        super().__init__()
        self.window = window
        self.wte, self.wpe = nn.Embedding(vocab_size, width), nn.Embedding(window, width)
        self.h = nn.ModuleList(Block(width, heads, bias, gelu) for _ in range(layers))
        self.ln_f = LayerNorm(width, bias)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                residual = name.endswith(("c_proj.weight", "mlp_proj.weight"))
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * layers) if residual else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, ids: Any) -> Any:
        """Logits."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.size(1)))
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)

    def loss(self, ids: Any, targets: Any) -> Any:
        logits = self(ids)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1), ignore_index=-1)
