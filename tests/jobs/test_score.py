import math

import numpy as np
import pytest
import torch

from gpt2kit.errors import ConfigError, DataError
from gpt2kit.jobs.score import score

TEXT = "the cat 猫 sat on the mat. " * 12  # longer than one chunk of 128 tokens


@pytest.fixture(scope="module")
def judge(model, transformers):
    """What transformers says: the ids of a text that fits the window, and a row of log-probabilities for each."""

    def probabilities(text):
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        ids = [tokenizer.eos_token_id, *tokenizer(text).input_ids]
        with torch.no_grad():
            logits_TV = transformers.GPT2LMHeadModel.from_pretrained(model)(torch.tensor([ids])).logits[0]
        return ids[1:], torch.log_softmax(logits_TV.double(), -1)[:-1].numpy()

    return probabilities


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_every_token_has_the_log_probability_and_rank_that_transformers_gives_it(model, judge, engine):
    text = "the cat 猫 sat\n"
    (chunk,) = score(model, text, engine=engine)
    ids, logprobs_TV = judge(text)
    assert [token.id for token in chunk.tokens] == ids
    assert [token.position for token in chunk.tokens] == [*range(1, len(ids) + 1)]
    assert b"".join(token.content for token in chunk.tokens).decode() == text
    own_T = logprobs_TV[range(len(ids)), ids]
    np.testing.assert_allclose([token.logprob for token in chunk.tokens], own_T, atol=1e-4)
    expected = [1 + int((row_V > own).sum()) for row_V, own in zip(logprobs_TV, own_T, strict=True)]
    assert [token.rank for token in chunk.tokens] == expected


def test_the_alternatives_are_the_likeliest_tokens(model, judge):
    (chunk,) = score(model, "the cat", top=3, engine="reference")
    ids, logprobs_TV = judge("the cat")
    for token, row_V in zip(chunk.tokens, logprobs_TV, strict=True):
        best = np.argsort(-row_V)[:3]
        assert [other.id for other in token.top] == best.tolist()
        np.testing.assert_allclose([other.logprob for other in token.top], row_V[best], atol=1e-4)
    assert len(chunk.tokens) == len(ids)


def test_a_long_text_comes_in_chunks_whose_figures_add_up(model):
    chunks = list(score(model, TEXT, engine="reference"))
    tokens = [token for chunk in chunks for token in chunk.tokens]
    assert len(chunks) > 1
    assert [token.position for token in tokens] == [*range(1, len(tokens) + 1)]
    summary = chunks[-1].summary
    assert (summary.tokens, summary.bytes) == (len(tokens), len(TEXT.encode()))
    assert summary.loss == pytest.approx(-sum(token.logprob for token in tokens) / len(tokens))
    assert summary.ranked_first == sum(token.rank == 1 for token in tokens)


def test_bits_are_the_surprise_and_probabilities_its_reverse(model):
    (chunk,) = score(model, "the", engine="reference")
    for token in chunk.tokens:
        assert token.probability == pytest.approx(2**-token.bits)
        assert token.probability == pytest.approx(math.exp(token.logprob))


def test_progress_is_told_of_long_texts_only(model):
    heard = []
    list(score(model, "the cat", engine="reference", report=heard.append))
    assert not heard
    tokens = sum(len(chunk.tokens) for chunk in score(model, TEXT, engine="reference", report=heard.append))
    assert (heard[-1].done, heard[-1].total) == (tokens, tokens)


def test_an_empty_text_is_refused(model):
    with pytest.raises(DataError, match="empty"):
        next(score(model, "", engine="reference"))


def test_fewer_alternatives_than_none_are_refused(model):
    with pytest.raises(ConfigError, match="top must be 0 or more"):
        next(score(model, "x", top=-1, engine="reference"))
