import math

import pytest
import torch


@pytest.mark.slow
def test_the_figures_are_those_of_transformers(gpt2, here, model, transformers):
    text = "the cat 猫 sat"
    (here / "text.txt").write_text(text, encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text).input_ids]])
    with torch.no_grad():
        loss = transformers.GPT2LMHeadModel.from_pretrained(model)(ids, labels=ids).loss.item()
    tokens = ids.shape[1] - 1
    status, out, _ = gpt2("evaluate", model, "text.txt", "--engine", "reference")
    assert status == 0
    assert out.splitlines() == [
        f"tokens          {tokens}",
        "bytes           15",
        f"loss            {loss:.4f} nats a token",
        f"perplexity      {math.exp(loss):.3f} a token",
        f"bits per byte   {loss * tokens / math.log(2) / 15:.4f}",
    ]


def test_a_missing_file_is_one_line_and_status_1(gpt2, model):
    assert gpt2("evaluate", model, "nowhere.txt") == (
        *(1, ""),
        "gpt2: nowhere.txt: cannot be read: No such file or directory\n",
    )
