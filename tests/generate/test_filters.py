import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from gpt2kit.generate.filters import (
    ids_completing_ngram,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_top_p_gpt2_ml,
    keep_top_p_nshepperd,
    keep_top_p_openai,
    keep_typical,
    softmax,
)

# Eighths of small numbers: ties happen, and every value is exact.
LOGITS = st.lists(st.integers(-24, 24).map(lambda n: n / 8), min_size=1, max_size=7).map(
    lambda values: np.array(values, np.float32)
)
SHARES = st.floats(0.01, 0.999)


def kept(mask_C):
    return set(np.flatnonzero(mask_C).tolist())


def survivors(warper, logits_C):
    """What a logits warper of transformers leaves."""
    scores = warper(torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(logits_C)[None])
    return set(torch.isfinite(scores[0]).nonzero().flatten().tolist())


def probabilities(logits_C):
    return torch.softmax(torch.from_numpy(logits_C).double(), 0).tolist()


def assume_no_sum_near(logits_C, share):
    """Leave out cases that rounding decides."""
    probs = probabilities(logits_C)
    sums = np.cumsum(sorted(probs, reverse=True))
    assume(np.abs(sums - share).min() > 1e-6)


# --- the worked example ---


@pytest.mark.parametrize(
    ("keep", "p", "expected"),
    [
        (keep_top_p_openai, 0.3, {0}),
        (keep_top_p_openai, 0.7, {0}),
        (keep_top_p_openai, 0.9, {0, 1}),
        (keep_top_p_openai, 0.99, {0, 1, 2}),
        (keep_top_p, 0.3, {0}),
        (keep_top_p, 0.7, {0, 1}),
        (keep_top_p, 0.9, {0, 1, 2}),
        (keep_top_p, 0.99, {0, 1, 2, 3}),
        (keep_top_p_nshepperd, 0.3, {0}),
        (keep_top_p_nshepperd, 0.7, {0, 1}),
        (keep_top_p_nshepperd, 0.9, {0, 1, 2}),
        (keep_top_p_nshepperd, 0.99, {0, 1, 2, 3}),
        (keep_top_p_gpt2_ml, 0.3, {0}),
        (keep_top_p_gpt2_ml, 0.7, {0}),
        (keep_top_p_gpt2_ml, 0.9, {0, 1}),
        (keep_top_p_gpt2_ml, 0.99, {0, 1, 2}),
    ],
)
def test_top_p_of_the_old_programs_keeps_what_they_kept(keep, p, expected):
    """Found by running the old programs; the standard rule is nshepperd's but for ties."""
    logits_C = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    assert kept(keep(logits_C, p)) == expected


def test_top_p_finds_the_same_tokens_in_another_order():
    logits_C = np.log(np.array([0.05, 0.3, 0.5, 0.15], np.float32))
    assert kept(keep_top_p(logits_C, 0.7)) == {1, 2}


def test_a_gpt2_ml_top_p_of_nearly_1_is_switched_off():
    logits_C = np.array([0.0, -50.0], np.float32)
    assert kept(keep_top_p_gpt2_ml(logits_C, 0.9999995)) == {0, 1}


def test_an_openai_top_p_of_0_is_greedy():
    assert kept(keep_top_p_openai(np.array([0.0, 2.0, 1.0], np.float32), 0)) == {1}


# --- ties ---


def test_ties_with_the_kth_token_survive():
    assert kept(keep_top_k(np.array([1.0, 2.0, 3.0, 2.0], np.float32), 2)) == {1, 2, 3}


def test_of_equal_tokens_at_the_border_top_p_keeps_the_lower_ids():
    assert kept(keep_top_p(np.zeros(4, np.float32), 0.5)) == {0, 1}


@pytest.mark.parametrize("keep", [keep_top_p_openai, keep_top_p_nshepperd])
def test_ties_with_the_last_token_survive_in_the_old_top_p(keep):
    assert kept(keep(np.zeros(4, np.float32), 0.5)) == {0, 1, 2, 3}


def test_a_k_beyond_the_vocabulary_keeps_all():
    assert kept(keep_top_k(np.array([1.0, 2.0], np.float32), 40)) == {0, 1}


# --- against the plainest program that does the same ---


@given(LOGITS)
def test_softmax_is_softmax(logits_C):
    np.testing.assert_allclose(softmax(logits_C), probabilities(logits_C), rtol=1e-12)


def test_softmax_of_huge_logits_does_not_overflow():
    np.testing.assert_allclose(softmax(np.array([3e38, 3e38], np.float32)), [0.5, 0.5])


@given(LOGITS, st.integers(1, 9))
def test_top_k_keeps_whoever_has_fewer_than_k_above(logits_C, k):
    expected = {at for at, logit in enumerate(logits_C) if sum(other > logit for other in logits_C) < k}
    assert kept(keep_top_k(logits_C, k)) == expected


@settings(deadline=None)
@given(LOGITS, SHARES)
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits_C, p):
    assume_no_sum_near(logits_C, p)
    probs = probabilities(logits_C)
    sets = (ids for size in range(1, len(probs) + 1) for ids in combinations(range(len(probs)), size))
    reaching = [ids for ids in sets if sum(probs[id] for id in ids) >= p]
    smallest = [ids for ids in reaching if len(ids) == len(reaching[0])]
    # Of several smallest sets the likeliest, then the one of lowest ids.
    expected = min(smallest, key=lambda ids: (-sum(logits_C[id] for id in ids), ids))
    assert kept(keep_top_p(logits_C, p)) == set(expected)


@given(LOGITS, SHARES)
def test_nshepperds_top_p_keeps_what_is_no_less_likely_than_the_one_that_crosses_p(logits_C, p):
    assume_no_sum_near(logits_C, p)
    probs, ordered = sorted(probabilities(logits_C), reverse=True), sorted(logits_C, reverse=True)
    crossing = next(rank for rank in range(len(probs)) if sum(probs[: rank + 1]) >= p)
    expected = {at for at, logit in enumerate(logits_C) if logit >= ordered[crossing]}
    assert kept(keep_top_p_nshepperd(logits_C, p)) == expected


@given(LOGITS, SHARES)
def test_openais_top_p_follows_its_source(logits_C, p):
    """top_p_logits in openai/gpt-2/src/sample.py, a line each."""
    assume_no_sum_near(logits_C, p)
    probs, ordered = sorted(probabilities(logits_C), reverse=True), sorted(logits_C, reverse=True)
    reached = [sum(probs[: at + 1]) <= p for at in range(len(probs))]
    smallest_kept = ordered[max(sum(reached) - 1, 0)]
    assert kept(keep_top_p_openai(logits_C, p)) == {at for at, logit in enumerate(logits_C) if logit >= smallest_kept}


@given(LOGITS, SHARES)
def test_gpt2_mls_top_p_follows_its_source(logits_C, p):
    """_top_p_sample in imcaspar/gpt2-ml/train/modeling.py: rank 0, and every rank whose inclusive sum is below p."""
    assume_no_sum_near(logits_C, p)
    probs = probabilities(logits_C)
    order = sorted(range(len(probs)), key=lambda id: (-logits_C[id], id))
    expected = {id for rank, id in enumerate(order) if rank == 0 or sum(probs[o] for o in order[: rank + 1]) < p}
    assert kept(keep_top_p_gpt2_ml(logits_C, p)) == expected


@given(LOGITS, SHARES)
def test_min_p_keeps_whoever_has_that_share_of_the_likeliest(logits_C, p):
    probs = probabilities(logits_C)
    ratios = [prob / max(probs) for prob in probs]
    assume(min(abs(ratio - p) for ratio in ratios) > 1e-6)
    assert kept(keep_min_p(logits_C, p)) == {at for at, ratio in enumerate(ratios) if ratio >= p}


@given(LOGITS, SHARES)
def test_typical_keeps_the_least_surprising_surprises_until_they_reach_p(logits_C, p):
    probs = probabilities(logits_C)
    entropy = -sum(prob * math.log(prob) for prob in probs)
    distance = [abs(-math.log(prob) - entropy) for prob in probs]
    # Rounding decides between tokens equally far from the entropy on either side of it.
    assume(
        all(
            probs[a] == probs[b] or abs(distance[a] - distance[b]) > 1e-9 for a, b in combinations(range(len(probs)), 2)
        )
    )
    order = sorted(range(len(probs)), key=lambda id: (distance[id], id))
    sums = np.cumsum([probs[id] for id in order])
    assume(np.abs(sums - p).min() > 1e-9)
    assert kept(keep_typical(logits_C, p)) == set(order[: int((sums < p).sum()) + 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "keep",
    [keep_top_p, keep_top_p_nshepperd, keep_top_p_openai, keep_top_p_gpt2_ml, keep_min_p, keep_typical],
    ids=lambda keep: keep.__name__,
)
@given(logits_C=LOGITS, p=st.floats(1e-9, 1))
def test_at_least_one_token_is_kept(keep, logits_C, p):
    assert keep(logits_C, p).any()


# --- against transformers, where no two tokens are equal ---


def drawn(seed):
    return np.random.default_rng(seed).normal(0, 2, 60).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3, 40, 60])
def test_top_k_agrees_with_transformers(seed, k):
    assert kept(keep_top_k(drawn(seed), k)) == survivors(TopKLogitsWarper(k), drawn(seed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.99])
def test_top_p_agrees_with_transformers(seed, p):
    assert kept(keep_top_p(drawn(seed), p)) == survivors(TopPLogitsWarper(p), drawn(seed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 1.0])
def test_min_p_agrees_with_transformers(seed, p):
    assert kept(keep_min_p(drawn(seed), p)) == survivors(MinPLogitsWarper(p), drawn(seed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9, 0.99])
def test_typical_agrees_with_transformers(seed, p):
    assert kept(keep_typical(drawn(seed), p)) == survivors(TypicalLogitsWarper(p), drawn(seed))


# --- as large as a vocabulary ---


def ranked(logits_C):
    """Every token in order of likelihood, then of id, and the probability of all up to each."""
    order = sorted(range(len(logits_C)), key=lambda id: (-logits_C[id], id))
    return order, np.cumsum(np.array(probabilities(logits_C))[order])


LARGE = {
    "flat": lambda draws: draws.normal(0, 0.1, 50257),
    "as a model's": lambda draws: draws.standard_t(6, 50257) * 2.5,
    "certain": lambda draws: np.where(np.arange(50257) == 4711, 50.0, draws.normal(0, 1, 50257)),
    "tied": lambda draws: np.round(draws.normal(0, 3, 50257)),
    "with bans": lambda draws: np.where(draws.random(50257) < 0.5, -np.inf, draws.normal(0, 2, 50257)),
}


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.001, 0.5, 0.9, 0.99999])
@pytest.mark.parametrize("which", LARGE)
def test_of_a_whole_vocabulary_each_top_p_keeps_what_ranking_all_of_it_gives(which, p):
    logits_C = LARGE[which](np.random.default_rng(5)).astype(np.float32)
    order, sums = ranked(logits_C)
    crossing = int((sums < p).sum())
    border = logits_C[order[crossing]], logits_C[order[max(crossing - 1, 0)]]
    assert kept(keep_top_p(logits_C, p)) == set(order[: crossing + 1])
    assert kept(keep_top_p_gpt2_ml(logits_C, p)) == set(order[: max(crossing, 1)])
    assert kept(keep_top_p_nshepperd(logits_C, p)) == kept(logits_C >= border[0])
    assert kept(keep_top_p_openai(logits_C, p)) == kept(logits_C >= border[1])


@pytest.mark.parametrize("which", LARGE)
def test_an_openai_top_p_of_1_keeps_all(which):
    assert keep_top_p_openai(LARGE[which](np.random.default_rng(5)), 1).all()


# --- n-grams ---


@pytest.mark.parametrize(
    ("ids", "n", "expected"),
    [
        ([1, 2, 3, 1, 2], 3, {3}),
        ([1, 2, 3, 1, 2, 4, 1, 2], 3, {3, 4}),
        ([1, 2, 3], 2, set()),
        ([5, 5], 2, {5}),
        ([7, 8, 7], 1, {7, 8}),
        ([1], 3, set()),
        ([1, 2], 3, set()),
    ],
)
def test_an_ngram_is_completed_by_what_followed_its_start_before(ids, n, expected):
    assert set(ids_completing_ngram(ids, n)) == expected


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 4))
def test_an_id_is_forbidden_if_with_it_an_ngram_occurs_twice(ids, n):
    def ngrams(sequence):
        return [tuple(sequence[at : at + n]) for at in range(len(sequence) - n + 1)]

    def repeats(id):
        return len(ids) + 1 >= n and ngrams([*ids, id])[-1] in ngrams(ids)

    assert set(ids_completing_ngram(ids, n)) == {id for id in range(4) if repeats(id)}
