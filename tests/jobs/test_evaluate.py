import pytest
import torch

from gpt2kit.errors import DataError, ModelNotFound
from gpt2kit.jobs.evaluate import evaluate


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_the_loss_on_a_file_is_transformers_loss(here, model, transformers, engine):
    (here / "text.txt").write_text("the cat 猫 sat", encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer("the cat 猫 sat").input_ids]])
    with torch.no_grad():
        expected = transformers.GPT2LMHeadModel.from_pretrained(model)(ids, labels=ids).loss.item()
    figures = evaluate(model, "text.txt", engine=engine)
    assert figures.loss == pytest.approx(expected, abs=1e-4)
    assert (figures.tokens, figures.bytes) == (ids.shape[1] - 1, 15)


def test_an_empty_file_is_refused(here, model):
    (here / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty\.txt: the file is empty"):
        evaluate(model, "empty.txt")


def test_the_text_is_read_before_the_model(here):
    with pytest.raises(DataError, match=r"missing\.txt"):
        evaluate("nowhere", "missing.txt")


def test_an_unknown_model_is_refused(here):
    (here / "text.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ModelNotFound):
        evaluate("nowhere", "text.txt")
