"""Whole chains, from logits to the id, against plain programs that follow the old ones line by line.

INVENTORY of the old programs, 1.1.6 (openai), 1.2.1 (nshepperd, gpt-2-simple) and 3.4 (gpt2-ml).
"""

import math

import numpy as np
import pytest
from hypothesis import assume, currently_in_test_context, given
from hypothesis import strategies as st

from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.generate.sampling import RowState, choose

# Eighths of small numbers: ties happen, and every value is exact.
LOGITS = st.lists(st.integers(-24, 24).map(lambda n: n / 8), min_size=2, max_size=8)
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0])
SHARES = st.one_of(st.just(0.0), st.floats(0.01, 0.99), st.just(1.0))
OUT = -1e10  # what the old programs set or subtract


def softmax(logits):
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def sums(probs):
    reached = [math.fsum(probs[: count + 1]) for count in range(len(probs))]
    return [*reached[:-1], 1.0]


def suppose(clear):
    """Leave out drawn examples that rounding decides; written ones must not be such."""
    if currently_in_test_context():
        assume(clear)
    assert clear


def suppose_no_sum_near(reached, p):
    suppose(p in {0, 1} or min(abs(one - p) for one in reached) > 1e-6)


def without_those_below(logits, smallest):
    return [logit if logit >= smallest else OUT for logit in logits]


def top_k(logits, k):
    return without_those_below(logits, sorted(logits, reverse=True)[min(k, len(logits)) - 1]) if k else logits


def openai(logits, temperature, k, p):
    """Temperature, top_k, then always top_p."""
    logits = top_k([logit / temperature for logit in logits], k)
    ordered = sorted(logits, reverse=True)
    reached = sums(softmax(ordered))
    suppose_no_sum_near(reached, p)
    count = sum(one <= p for one in reached)
    return without_those_below(logits, ordered[max(count - 1, 0)])


def nshepperd(logits, temperature, k, p):
    """Temperature, then top_p where it is above 0, else top_k."""
    logits = [logit / temperature for logit in logits]
    if p == 0:
        return top_k(logits, k)
    ordered = sorted(logits, reverse=True)
    reached = sums(softmax(ordered))
    suppose_no_sum_near(reached, p)
    before = [0.0, *reached[:-1]]
    return without_those_below(logits, min(logit for logit, one in zip(ordered, before, strict=True) if one < p))


def gpt2_ml(logits, p):
    """No temperature, no top_k; id 0 is padding. A p that is a number above 0.999999 switches the filter off."""
    logits = [logits[0] + OUT, *logits[1:]]
    if p > 0.999999:
        return logits
    probs = softmax(logits)
    order = sorted(range(len(probs)), key=lambda id: -probs[id])
    reached = sums([probs[id] for id in order])
    suppose_no_sum_near(reached, p)
    kept = {id for rank, id in enumerate(order) if reached[rank] < p or rank == 0}
    return [logit if id in kept else logit + OUT for id, logit in enumerate(logits)]


def standard(logits, temperature, k, p, min_p, typical_p):
    """Each filter looks at the probabilities that are left, as the plain sets say."""
    left = dict(enumerate(logit / temperature for logit in logits))
    if k:
        smallest = sorted(left.values(), reverse=True)[min(k, len(left)) - 1]
        left = {id: logit for id, logit in left.items() if logit >= smallest}
    if p < 1:
        probs = dict(zip(left, softmax(list(left.values())), strict=True))
        left = first_to_reach(left, sorted(left, key=lambda id: -left[id]), probs, p)
    likeliest = max(left.values())
    shares = {id: math.exp(logit - likeliest) for id, logit in left.items()}
    suppose(all(abs(share - min_p) > 1e-6 for share in shares.values()))
    left = {id: logit for id, logit in left.items() if shares[id] >= min_p}
    if typical_p < 1:
        probs = dict(zip(left, softmax(list(left.values())), strict=True))
        entropy = -sum(prob * math.log(prob) for prob in probs.values())
        distance = {id: abs(-math.log(prob) - entropy) for id, prob in probs.items()}
        pairs = [(a, b) for a in left for b in left if left[a] != left[b]]
        suppose(all(abs(distance[a] - distance[b]) > 1e-9 for a, b in pairs))
        left = first_to_reach(left, sorted(left, key=lambda id: (round(distance[id], 11), id)), probs, typical_p)
    return [left.get(id, OUT) for id in range(len(logits))]


def first_to_reach(left, order, probs, p):
    reached = sums([probs[id] for id in order])
    suppose_no_sum_near(reached, p)
    kept = order[: sum(one < p for one in reached) + 1]
    return {id: left[id] for id in sorted(kept)}


def drawn_from(logits, seed, sample, position):
    """The id whose slice of [0, 1), slices in order of id, holds the number that numpy draws first."""
    philox = np.random.Philox(key=[seed, 0], counter=[position, sample, 0, 0])
    uniform = np.random.Generator(philox).random()
    reached = sums(softmax(logits))
    suppose_no_sum_near(reached, uniform)
    return sum(one < uniform for one in reached)


def chosen(logits, seed, **settings):
    state = RowState(SamplingConfig(seed=seed, **settings), (1, 1, 1), 2, sample=4)
    return int(choose(np.array([logits], np.float32), [state]).ids_R[0])


SEEDS = st.integers(0, 999)


@given(LOGITS, TEMPERATURES, st.integers(0, 6), SHARES, SEEDS)
def test_the_chain_openai_chooses_as_openais_program(logits, temperature, k, p, seed):
    expected = drawn_from(openai(logits, temperature, k, p), seed, 4, 3)
    assert chosen(logits, seed, chain="openai", temperature=temperature, top_k=k, top_p=p) == expected


@given(LOGITS, TEMPERATURES, st.integers(0, 6), SHARES, SEEDS)
def test_the_chain_nshepperd_chooses_as_nshepperds_program(logits, temperature, k, p, seed):
    assume(not (k and p == 1))  # refused: the top_k would be without effect
    expected = drawn_from(nshepperd(logits, temperature, k, p), seed, 4, 3)
    assert chosen(logits, seed, chain="nshepperd", temperature=temperature, top_k=k, top_p=p) == expected


@given(LOGITS, SHARES, SEEDS)
def test_the_chain_gpt2_ml_chooses_as_gpt2_mls_program(logits, p, seed):
    expected = drawn_from(gpt2_ml(logits, p), seed, 4, 3)
    assert chosen(logits, seed, chain="gpt2-ml", top_p=p) == expected


@given(
    LOGITS, TEMPERATURES, st.integers(0, 6), st.floats(0.01, 1), st.floats(0, 1), st.floats(0.01, 1), SEEDS
)  # fmt: skip
def test_the_standard_chain_is_its_filters_one_after_the_other(logits, temperature, k, p, min_p, typical_p, seed):
    expected = drawn_from(standard(logits, temperature, k, p, min_p, typical_p), seed, 4, 3)
    settings = {"temperature": temperature, "top_k": k, "top_p": p, "min_p": min_p, "typical_p": typical_p}
    assert chosen(logits, seed, **settings) == expected


@pytest.mark.parametrize("chain", ["standard", "openai", "nshepperd"])
def test_at_temperature_0_every_chain_takes_the_likeliest(chain):
    assert chosen([0.0, 2.0, 1.0], 5, chain=chain, temperature=0, top_p=0.1) == 1


# --- how often each token comes ---

FREE = [1.5, 1.0, 1.0, 0.5, 0.0, -1.0, -2.0]
WAYS = {
    "temperature": ({"temperature": 0.5}, lambda: standard(FREE, 0.5, 0, 1, 0, 1)),
    "top_k": ({"top_k": 4}, lambda: standard(FREE, 1, 4, 1, 0, 1)),
    "top_p": ({"top_p": 0.8}, lambda: standard(FREE, 1, 0, 0.8, 0, 1)),
    "min_p": ({"min_p": 0.3}, lambda: standard(FREE, 1, 0, 1, 0.3, 1)),
    "typical_p": ({"typical_p": 0.6}, lambda: standard(FREE, 1, 0, 1, 0, 0.6)),
    "standard": (
        {"temperature": 1.5, "top_k": 6, "top_p": 0.9, "min_p": 0.3, "typical_p": 0.9},
        lambda: standard(FREE, 1.5, 6, 0.9, 0.3, 0.9),
    ),
    "openai": ({"chain": "openai", "temperature": 2.0, "top_k": 6, "top_p": 0.9}, lambda: openai(FREE, 2, 6, 0.9)),
    "nshepperd": ({"chain": "nshepperd", "temperature": 2.0, "top_p": 0.7}, lambda: nshepperd(FREE, 2, 0, 0.7)),
    "nshepperd top_k": ({"chain": "nshepperd", "top_k": 2, "top_p": 0.0}, lambda: nshepperd(FREE, 1, 2, 0)),
    "gpt2-ml": ({"chain": "gpt2-ml", "top_p": 0.9}, lambda: gpt2_ml(FREE, 0.9)),
}
ABOVE_ONE_IN_1000 = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46}  # chi-square, by degrees of freedom


@pytest.mark.slow
@pytest.mark.parametrize("over", ["seeds", "positions"])
@pytest.mark.parametrize("way", WAYS)
def test_tokens_come_as_often_as_the_probabilities_that_are_left_say(way, over):
    settings, left = WAYS[way]
    probs, count = softmax(left()), 4000
    if over == "seeds":
        states = [RowState(SamplingConfig(seed=seed, **settings), (0,), 1) for seed in range(count)]
    else:
        states = [RowState(SamplingConfig(seed=1, **settings), (0,) * at, 1) for at in range(1, count + 1)]
    ids = choose(np.tile(np.array(FREE, np.float32), (count, 1)), states).ids_R.tolist()
    possible = [id for id, prob in enumerate(probs) if prob > 0]
    assert 1 < len(possible) <= len(FREE)
    assert set(ids) == set(possible)
    distance = sum((ids.count(id) - count * probs[id]) ** 2 / (count * probs[id]) for id in possible)
    assert distance < ABOVE_ONE_IN_1000[len(possible) - 1]
