import math

import pytest
import torch

from gpt2kit.errors import DataError
from gpt2kit.evaluation.perplexity import Evaluation, evaluate_text
from gpt2kit.generate.generator import Generator
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.vocabulary import read_vocabulary

TEXT = "the cat 猫 sat"


@pytest.fixture
def model(tiny_checkpoint):
    tokenizer = ByteLevelBPE(read_vocabulary(tiny_checkpoint.tokenizer_files, "tiny"))
    return Generator(tiny_checkpoint, tokenizer, ReferenceEngine(tiny_checkpoint, 1))


@pytest.mark.slow
def test_the_loss_is_transformers_loss(model, golden, transformers):
    oracle = transformers.GPT2LMHeadModel.from_pretrained(golden / "hf-safetensors").eval()
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(golden / "hf-safetensors")
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(TEXT).input_ids]])
    with torch.no_grad():
        expected = oracle(ids, labels=ids).loss.item()
    assert evaluate_text(model, TEXT).loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_tokens_and_bytes_are_those_of_the_text(model, golden, transformers):
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(golden / "hf-safetensors")
    figures = evaluate_text(model, TEXT)
    assert (figures.tokens, figures.bytes) == (len(tokenizer(TEXT).input_ids), 15)


def test_every_token_of_a_long_text_counts(model):
    """Longer than the window of 56: the sum over all is the sum that scoring gives."""
    text = TEXT * 20
    scores = model.score(text)
    figures = evaluate_text(model, text)
    assert figures.tokens == scores.ids_T.size > 100
    assert figures.nll == pytest.approx(-scores.logprobs_T.sum())


# Four tokens of two bytes each; the model gave each a chance of 1 in 8.
EVEN = Evaluation(tokens=4, bytes=8, nll=4 * math.log(8))


def test_perplexity_is_the_number_of_equally_likely_choices():
    assert EVEN.perplexity == pytest.approx(8)


def test_bits_per_byte_spread_the_bits_of_all_tokens_over_all_bytes():
    """Three bits a token, two bytes a token."""
    assert EVEN.bits_per_byte == pytest.approx(1.5)


def test_progress_ends_with_the_last_token_and_the_final_perplexity(model):
    reports = []
    figures = evaluate_text(model, TEXT * 20, reports.append)
    assert reports[-1].done == reports[-1].total == figures.tokens
    assert reports[-1].values["perplexity"] == pytest.approx(figures.perplexity)


def test_an_empty_text_is_refused(model):
    with pytest.raises(DataError, match="empty"):
        evaluate_text(model, "")


def test_a_loss_beyond_all_floats_is_an_infinite_perplexity():
    assert Evaluation(tokens=1, bytes=1, nll=1000.0).perplexity == math.inf
