import numpy as np
import pytest
import torch

from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.score import score, score_chunks
from gpt2kit.generate.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def oracle(in_transformers, small_checkpoint):
    return in_transformers(small_checkpoint)


@pytest.fixture(params=[ReferenceEngine, TorchEngine], ids=["reference", "torch"])
def engine(request, small_checkpoint):
    return request.param(small_checkpoint, slots=1)


def ids_of_length(count, vocab_size):
    return np.random.default_rng(count).integers(0, vocab_size, count).tolist()


@torch.no_grad()
def transformers_logprobs(model, ids):
    """What transformers gives every id after the first, in one window."""
    logits_TV = model(torch.tensor([ids[:-1]])).logits[0].double()
    return torch.log_softmax(logits_TV, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


def slid(window, at):
    """Where the context of token `at` begins, when every later window starts with the newest half of the one before."""
    begin = 0
    while at > begin + window:
        begin += window - window // 2
    return begin


@pytest.mark.parametrize("count", [2, 5, 32, 33])
def test_a_text_is_as_likely_as_transformers_says(engine, oracle, count):
    """33 ids fill the window of 32: the last one is only judged."""
    ids = ids_of_length(count, engine.config.vocab_size)
    np.testing.assert_allclose(score(engine, ids).logprobs_T, transformers_logprobs(oracle, ids), atol=1e-4)


@pytest.mark.parametrize("count", [34, 49, 50, 100])
def test_a_text_longer_than_the_window_keeps_at_least_half_a_window_of_context(engine, oracle, count):
    ids = ids_of_length(count, engine.config.vocab_size)
    begins = [slid(32, at) for at in range(1, count)]
    assert all(at - begin >= 16 for at, begin in enumerate(begins, 1) if begin)
    from_begin = {begin: transformers_logprobs(oracle, ids[begin : begin + 33]) for begin in set(begins)}
    expected = [from_begin[begin][at - begin - 1] for at, begin in enumerate(begins, 1)]
    np.testing.assert_allclose(score(engine, ids).logprobs_T, expected, atol=1e-4)


@pytest.mark.parametrize("count", [2, 31, 32, 33, 34, 65, 100])
def test_every_token_but_the_first_is_judged_once(engine, count):
    ids = ids_of_length(count, engine.config.vocab_size)
    assert score(engine, ids).ids_T.tolist() == ids[1:]


def test_a_long_window_is_read_in_parts_without_a_seam(make_checkpoint, in_transformers):
    """Longer than the 128 positions whose logits exist at once."""
    checkpoint = make_checkpoint(257, window=300, width=16, layers=1, heads=2)
    ids = ids_of_length(301, 257)
    expected = transformers_logprobs(in_transformers(checkpoint), ids)
    np.testing.assert_allclose(score(ReferenceEngine(checkpoint), ids).logprobs_T, expected, atol=1e-4)


def test_the_pieces_joined_are_the_whole(engine):
    ids = ids_of_length(100, engine.config.vocab_size)
    joined = np.concatenate([chunk.logprobs_T for chunk in score_chunks(engine, ids)])
    np.testing.assert_array_equal(joined, score(engine, ids).logprobs_T)


def test_alternatives_are_transformers_topk(engine, oracle):
    ids = ids_of_length(20, engine.config.vocab_size)
    with torch.no_grad():
        best = torch.log_softmax(oracle(torch.tensor([ids[:-1]])).logits[0].double(), -1).topk(3)
    top = score(engine, ids, top=3).top
    assert [[id for id, _ in entry] for entry in top] == best.indices.tolist()
    np.testing.assert_allclose([[logprob for _, logprob in entry] for entry in top], best.values, atol=1e-4)


@pytest.mark.parametrize("ids", [[], [3]], ids=["none", "one"])
def test_without_a_token_to_judge_the_scores_are_empty(engine, ids):
    scores = score(engine, ids, top=2)
    assert (scores.ids_T.tolist(), scores.logprobs_T.tolist(), scores.top) == ([], [], ())


@pytest.mark.parametrize("count", [20, 100])
def test_scoring_twice_says_the_same(engine, count):
    """The slot is free again afterwards."""
    ids = ids_of_length(count, engine.config.vocab_size)
    np.testing.assert_array_equal(score(engine, ids).logprobs_T, score(engine, ids).logprobs_T)


def test_a_text_half_scored_frees_the_slot(engine):
    ids = ids_of_length(100, engine.config.vocab_size)
    expected = score(engine, ids).logprobs_T
    begun = score_chunks(engine, ids)
    next(begun)
    begun.close()
    np.testing.assert_array_equal(score(engine, ids).logprobs_T, expected)


def test_a_rank_counts_who_is_likelier_and_of_equals_those_before(small_checkpoint):
    class Fixed(ReferenceEngine):
        def step(self, rows):
            return np.tile(np.array([1.0, 3, 2, 3, 2] + [0] * (self.config.vocab_size - 5), np.float32), (4, 1))

    scores = score(Fixed(small_checkpoint, slots=1), [0, 1, 3, 4, 0])
    assert scores.ranks_T.tolist() == [1, 2, 4, 5]
