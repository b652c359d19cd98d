"""optimum's ORTModelForCausalLM on a directory with model.onnx: logits at once, and a continuation by its generate."""

import numpy as np
import torch
from answering import answer, asked_directory
from optimum.onnxruntime import ORTModelForCausalLM

model = ORTModelForCausalLM.from_pretrained(asked_directory(), use_io_binding=False)
assert model.can_use_cache
prompts = torch.tensor([[9, 9, 9, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7]])  # the first is filled up on the left
masks = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7])
kept = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


def logits_of(ids):
    mask, positions = np.ones_like(ids), np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    asked = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return model(**{name: torch.tensor(np.array(values, np.int64)) for name, values in asked.items()}).logits.numpy()


answer(logits_of, generated=model.generate(prompts, attention_mask=masks, **kept).numpy())
