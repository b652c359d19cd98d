"""transformers' generate as a contender. Usage: transformers_.py MODEL float32|bfloat16."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from contender import END, answer_lines

THREADS = 2


class Transformers:
    def __init__(self, model: str, kind: str) -> None:
        torch.set_num_threads(THREADS)
        dtype = getattr(torch, kind)
        self.model = transformers.GPT2LMHeadModel.from_pretrained(model, dtype=dtype).eval()
        self.kind = kind

    def about(self) -> Mapping[str, Any]:
        name = f"transformers {transformers.__version__}, torch {torch.__version__}, {self.kind}"
        read = sum(each.nbytes for each in self.model.parameters()) - self.model.transformer.wpe.weight.nbytes
        return {"name": name, "bytes": read, "features": torch.backends.cpu.get_cpu_capability()}

    @torch.inference_mode()
    def decode(self, prompt: Sequence[int], new: int) -> Sequence[int]:
        ids = torch.tensor([prompt])
        found = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=END,
        )
        return found[0, len(prompt) :].tolist()


if __name__ == "__main__":
    answer_lines(Transformers(*sys.argv[1:]))
