"""GPT2-ML, imcaspar's Chinese model: GPT-2's parts, wired as Grover's.

    e = ln_e(wte[ids] + wpe[positions])
    each layer:  s = x + attn(x)                    no norm before attention
                 x = ln_2(s + mlp(ln_1(s)))         what is added back is s, not its norm
    logits = x . wte                                no norm before the head
ln_1 and ln_2 are its LayerNorm_mlp_ln0 and LayerNorm_mlp_ln1. Shape letters as in gpt2.py.
Source: Zellers et al. 2019, "Defending Against Neural Fake News", and github.com/imcaspar/gpt2-ml/train/modeling.py.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gpt2kit.config.model import ModelConfig
from gpt2kit.model.gpt2 import GPT2, Block
from gpt2kit.model.kv_cache import LayerCache


class GPT2MLBlock(Block):
    """One layer: attention, then MLP, each added back; the sum of all is normalised."""

    def __init__(self, config: ModelConfig, layer: int, dropout: float) -> None:
        super().__init__(config, layer, dropout)
        self.attn.dropout = 0.0  # as there: whom to look at is never left to chance

    def forward(self, x_BTD: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Transform all positions."""
        x_BTD = x_BTD + self.drop(self.attn(x_BTD, cache))
        return cast(Tensor, self.ln_2(x_BTD + self.drop(self.mlp(self.ln_1(x_BTD)))))


class GPT2ML(GPT2):
    """The whole network. Parameter names are the checkpoint's canonical names."""

    block = GPT2MLBlock

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__(config, dropout)
        self.ln_e = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.ln_f = nn.Identity()

    def embedded(self, ids_BT: Tensor, positions_T: Tensor) -> Tensor:
        """What the first layer gets; nothing of it is dropped."""
        return cast(Tensor, self.ln_e(self.wte(ids_BT) + self.wpe(positions_T)))
