"""TFGPT2LMHeadModel of transformers 4.38, on a directory with tf_model.h5."""

from answering import answer, asked_directory
from transformers import TFGPT2LMHeadModel

model, told = TFGPT2LMHeadModel.from_pretrained(asked_directory(), output_loading_info=True)
answer(lambda ids: model(ids).logits.numpy(), **{key: [str(name) for name in names] for key, names in told.items()})
