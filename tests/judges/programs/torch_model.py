"""GPT2LMHeadModel of transformers 4.38, on a directory with pytorch_model.bin."""

import torch
from answering import answer, asked_directory
from transformers import GPT2LMHeadModel

model, told = GPT2LMHeadModel.from_pretrained(
    asked_directory(), output_loading_info=True, torch_dtype=torch.float32, use_safetensors=False
)


def logits_of(ids):
    with torch.inference_mode():
        return model(torch.tensor(ids)).logits.numpy()


answer(logits_of, **{key: [str(name) for name in names] for key, names in told.items()})
