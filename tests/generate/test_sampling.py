import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.errors import Gpt2kitError, RequestError
from gpt2kit.generate.sampling import RowState, alternatives, choose, entropy_of, logprobs_of, uniform

VOCAB = 50
HALVES = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))  # the worked example of the old programs
GREEDY = SamplingConfig(temperature=0)


def choose_one(logits_V, sampling=GREEDY, ids=(0,), prompt_length=1, **others):
    state = RowState(sampling, ids, prompt_length, **others)
    return int(choose(np.asarray(logits_V, np.float32)[None], [state]).ids_R[0])


def ever_chosen(logits_V, **settings):
    """Every id that 300 seeds choose."""
    states = [RowState(SamplingConfig(seed=seed, **settings), (0,), 1) for seed in range(300)]
    return set(choose(np.tile(np.asarray(logits_V, np.float32), (300, 1)), states).ids_R.tolist())


def random_rows(count):
    return np.random.default_rng(7).normal(0, 2, (count, VOCAB)).astype(np.float32)


def chi_square(ids, probs):
    expected = np.asarray(probs) * len(ids)
    return ((np.bincount(ids, minlength=len(probs)) - expected) ** 2 / expected).sum()


# --- randomness ---


def philox4x64(key, counter):
    """Philox4x64-10 in plain integers: Salmon et al. 2011, section 4.3 and Random123's constants."""
    low = 2**64 - 1
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        p, q = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (q >> 64) ^ b ^ k, q & low, (p >> 64) ^ d ^ m, p & low
        k, m = (k + 0x9E3779B97F4A7C15) & low, (m + 0xBB67AE8584CAA73B) & low
    return a, b, c, d


def test_the_plain_philox_gives_the_published_answers():
    """Random123, tests/kat_vectors: philox4x64 10, all zero."""
    known = (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)
    assert philox4x64((0, 0), (0, 0, 0, 0)) == known


COUNTERS = st.integers(0, 2**20)


@given(seed=st.integers(0, 2**64 - 1), sample=COUNTERS, position=COUNTERS)
@example(seed=2**63 + 1, sample=0, position=0)
@example(seed=2**64 - 1, sample=0, position=0)
def test_the_uniform_number_is_philox_of_seed_sample_and_position(seed, sample, position):
    first = philox4x64((seed, 0), (position + 1, sample, 0, 0))[0]
    assert uniform(seed, sample, position) == (first >> 11) / 2**53


@pytest.mark.slow
@given(seed=st.integers(0, 2**63 - 1), sample=COUNTERS, position=COUNTERS)
def test_the_uniform_number_is_the_one_numpy_draws_first(seed, sample, position):
    key, counter = np.array([seed, 0], np.uint64), np.array([position, sample, 0, 0], np.uint64)
    assert uniform(seed, sample, position) == np.random.Generator(np.random.Philox(key=key, counter=counter)).random()


def test_uniform_numbers_fill_the_interval_evenly():
    tenths = [int(10 * uniform(3, 0, position)) for position in range(10_000)]
    assert chi_square(tenths, [0.1] * 10) < 27.9  # 9 degrees of freedom: 1 in 1000 is above


DRAWS = {
    "seeds": lambda n: RowState(SamplingConfig(seed=n), (0,), 1),
    "samples": lambda n: RowState(SamplingConfig(seed=0), (0,), 1, sample=n),
    "positions": lambda n: RowState(SamplingConfig(seed=0), range(1, n + 2), 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("over", DRAWS)
def test_tokens_come_as_often_as_the_model_says(over):
    logits_V = np.array([1.0, -1.0, 0.5, 0.0, 2.0], np.float32)
    count = 20_000 if over == "seeds" else 4000
    ids_R = choose(np.tile(logits_V, (count, 1)), [DRAWS[over](n) for n in range(count)]).ids_R
    probs = torch.softmax(torch.from_numpy(logits_V).double(), 0).numpy()
    assert chi_square(ids_R, probs) < 18.5  # 4 degrees of freedom: 1 in 1000 is above


def test_temperature_sharpens_as_a_power_of_the_probabilities():
    states = [RowState(SamplingConfig(seed=seed, temperature=0.5), (0,), 1) for seed in range(5000)]
    ids_R = choose(np.tile(HALVES, (5000, 1)), states).ids_R
    squares = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    assert chi_square(ids_R, squares / squares.sum()) < 16.3  # 3 degrees of freedom: 1 in 1000 is above


def test_a_rows_choice_does_not_depend_on_its_neighbours():
    logits_RV = random_rows(30)
    states = [
        RowState(SamplingConfig(seed=row % 4, top_p=0.9, top_k=20), range(row + 1), 1, sample=row) for row in range(30)
    ]
    alone = [choose(logits_RV[[row]], [states[row]]) for row in range(30)]
    together = choose(logits_RV, states)
    assert together.ids_R.tolist() == [choice.ids_R[0] for choice in alone]
    assert together.logprobs_R.tolist() == [choice.logprobs_R[0] for choice in alone]


def test_the_logits_handed_in_are_not_changed():
    logits_RV = random_rows(2)
    everything = SamplingConfig(
        seed=1, temperature=0.7, top_k=9, top_p=0.9, min_p=0.01, typical_p=0.9, repetition_penalty=1.3,
        presence_penalty=0.1, frequency_penalty=0.1, no_repeat_ngram=2, logit_bias={3: 1.0}, banned_ids=(4,),
    )  # fmt: skip
    state = RowState(everything, (1, 2, 1), 1, banned=(5,))
    before = logits_RV.copy()
    choose(logits_RV, [state, replace(state, sampling=GREEDY)])
    np.testing.assert_array_equal(logits_RV, before)


# --- single settings ---


def test_temperature_0_takes_the_likeliest():
    logits_RV = random_rows(20)
    ids_R = choose(logits_RV, [RowState(GREEDY, (0,), 1)] * 20).ids_R
    assert ids_R.tolist() == np.argmax(logits_RV, axis=1).tolist()


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-40, 1e-300])
def test_a_temperature_next_to_nothing_takes_the_likeliest(temperature):
    assert ever_chosen([-9.0, 3.0, 9.0, 8.0], temperature=temperature) == {2}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.7}, {0, 1}),
        ({"top_p": 0.7, "top_k": 1}, {0}),
        ({"min_p": 0.2}, {0, 1, 2}),
        ({"min_p": 0.5}, {0, 1}),
        ({}, {0, 1, 2, 3}),
        ({"chain": "openai", "top_p": 0.9}, {0, 1}),
        ({"chain": "openai", "top_p": 0.9, "top_k": 2}, {0}),
        ({"chain": "nshepperd", "top_p": 0.9, "top_k": 1}, {0, 1, 2}),
        ({"chain": "nshepperd", "top_p": 0.0, "top_k": 2}, {0, 1}),
        ({"chain": "nshepperd", "top_p": 0.0}, {0, 1, 2, 3}),
    ],
    ids=str,
)
def test_only_tokens_that_the_filters_keep_are_ever_chosen(settings, expected):
    """Of probabilities .5, .3, .15, .05. After top_k 2 they are .625 and .375: openai leaves the crossing one out."""
    assert ever_chosen(HALVES, **settings) == expected


def test_top_p_sees_the_probabilities_after_temperature():
    """At temperature .5 they are .68, .25, .06, .01: the first alone reaches .6; at temperature 1 it does not."""
    assert ever_chosen(HALVES, top_p=0.6, temperature=0.5) == {0}
    assert ever_chosen(HALVES, top_p=0.6) == {0, 1}


def test_gpt2_ml_never_writes_its_padding():
    assert ever_chosen([9.0, 0.0, 0.0], chain="gpt2-ml") == {1, 2}


def test_gpt2_ml_counts_probabilities_without_its_padding():
    """Without id 0 they are .5, .3, .15, .05 again, of which the old program keeps two at .9."""
    assert ever_chosen([5.0, *HALVES], chain="gpt2-ml", top_p=0.9) == {1, 2}


def test_forced_ids_come_first_and_in_order():
    forced = SamplingConfig(temperature=0, forced_ids=(2, 1))
    logits_V = [9.0, 0.0, 0.0]
    ids = [5, 5]
    for _ in range(3):
        ids.append(choose_one(logits_V, forced, ids, prompt_length=2))
    assert ids[2:] == [2, 1, 0]


def test_a_bias_is_added():
    assert choose_one([1.0, 0.0], replace(GREEDY, logit_bias={1: 0.9})) == 0
    assert choose_one([1.0, 0.0], replace(GREEDY, logit_bias={1: 1.1})) == 1


def test_banned_ids_are_never_chosen():
    assert ever_chosen([3.0, 2.0, 1.0], banned_ids=(0, 2)) == {1}


def test_an_id_banned_for_this_step_is_not_chosen():
    assert choose_one([3.0, 2.0, 1.0], banned=(0,)) == 1


def test_a_ban_is_stronger_than_a_bias():
    assert choose_one([0.0, 0.0], replace(GREEDY, logit_bias={0: 1e9}, banned_ids=(0,))) == 1


@pytest.mark.parametrize(("penalty", "expected"), [(0.05, 0), (0.2, 1)])
def test_presence_penalty_counts_a_token_once(penalty, expected):
    """Token 0 leads by .1 and was written three times."""
    assert choose_one([1.0, 0.9], replace(GREEDY, presence_penalty=penalty), [5, 0, 0, 0], 1) == expected


@pytest.mark.parametrize(("penalty", "expected"), [(0.03, 0), (0.04, 1)])
def test_frequency_penalty_counts_a_token_every_time(penalty, expected):
    """Token 0 leads by .1 and was written three times."""
    assert choose_one([1.0, 0.9], replace(GREEDY, frequency_penalty=penalty), [5, 0, 0, 0], 1) == expected


def test_presence_and_frequency_do_not_count_the_prompt():
    penalties = replace(GREEDY, presence_penalty=9.0, frequency_penalty=9.0)
    assert choose_one([1.0, 0.9], penalties, [0, 0, 0], prompt_length=3) == 0


# --- against transformers ---


def by_inverse_cdf(scores_V, seed, sample, position):
    """The id whose slice of [0, 1), slices in order of id, holds the number numpy draws."""
    philox = np.random.Philox(key=[seed, 0], counter=[position, sample, 0, 0])
    slices = torch.cumsum(torch.softmax(scores_V.double(), 0), 0).numpy()
    return int((slices <= np.random.Generator(philox).random()).sum())


AGREEING = {
    "plain": ({}, []),
    "temperature": ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
    "top_k": ({"top_k": 5}, [TopKLogitsWarper(5)]),
    "top_p": ({"top_p": 0.8}, [TopPLogitsWarper(0.8)]),
    "min_p": ({"min_p": 0.1}, [MinPLogitsWarper(0.1)]),
    "typical": ({"typical_p": 0.6}, [TypicalLogitsWarper(0.6)]),
    "repetition": ({"repetition_penalty": 1.4}, [RepetitionPenaltyLogitsProcessor(1.4)]),
    "reward": ({"repetition_penalty": 0.5}, [RepetitionPenaltyLogitsProcessor(0.5)]),
    "n-gram": ({"no_repeat_ngram": 2}, [NoRepeatNGramLogitsProcessor(2)]),
    "chain": (
        {"repetition_penalty": 1.2, "no_repeat_ngram": 3, "temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
        [
            *(RepetitionPenaltyLogitsProcessor(1.2), NoRepeatNGramLogitsProcessor(3)),
            *(TemperatureLogitsWarper(1.5), TopKLogitsWarper(20), TopPLogitsWarper(0.9), MinPLogitsWarper(0.05)),
        ],
    ),
}


@pytest.mark.parametrize("which", AGREEING)
def test_choices_are_those_of_transformers_processors(which):
    settings, processors = AGREEING[which]
    logits_RV, draws = random_rows(100), np.random.default_rng(11)
    states, expected = [], []
    for row, logits_V in enumerate(logits_RV):
        ids = draws.integers(0, VOCAB // 4, 30).tolist()  # few ids, so that they repeat
        states.append(RowState(SamplingConfig(seed=row, **settings), ids, 10, sample=row % 3))
        scores = torch.from_numpy(logits_V)[None]
        for processor in processors:
            scores = processor(torch.tensor([ids]), scores)
        expected.append(by_inverse_cdf(scores[0], row, row % 3, len(ids)))
    assert choose(logits_RV, states).ids_R.tolist() == expected


# --- log-probabilities ---


def test_logprobs_are_those_of_the_model_whatever_the_filters():
    logits_RV = random_rows(40)
    odd = SamplingConfig(temperature=0.3, top_k=3, banned_ids=(1, 2), presence_penalty=2.0)
    states = [RowState(replace(odd, seed=row), (0, 3), 1) for row in range(40)]
    choice = choose(logits_RV, states)
    model_RV = torch.log_softmax(torch.from_numpy(logits_RV).double(), -1)
    expected_R = model_RV[torch.arange(40), torch.from_numpy(choice.ids_R)]
    np.testing.assert_allclose(choice.logprobs_R, expected_R, rtol=1e-6)


def test_logprobs_of_given_ids_are_torchs():
    logits_RV, ids_R = random_rows(VOCAB), np.arange(VOCAB)
    expected_RV = torch.log_softmax(torch.from_numpy(logits_RV).double(), -1).numpy()
    np.testing.assert_allclose(logprobs_of(logits_RV, ids_R), expected_RV.diagonal(), rtol=1e-6)


def test_alternatives_are_torchs_topk():
    logits_V = random_rows(1)[0]
    best = torch.log_softmax(torch.from_numpy(logits_V).double(), -1).topk(5)
    found = alternatives(logits_V, 5)
    assert [id for id, _ in found] == best.indices.tolist()
    np.testing.assert_allclose([logprob for _, logprob in found], best.values, rtol=1e-6)


def test_equal_alternatives_come_in_order_of_id():
    found = alternatives(np.array([1.0, 2.0, 1.0, 2.0, 1.0], np.float32), 3)
    assert [id for id, _ in found] == [1, 3, 0]


def test_no_alternatives_are_none():
    assert alternatives(np.zeros(3, np.float32), 0) == ()


@pytest.mark.parametrize("size", [2, VOCAB, 50_257])
def test_a_log_probability_is_the_same_float_wherever_it_is_told(size):
    logits_RV = np.random.default_rng(size).normal(-60, 3, (5, size)).astype(np.float32)
    choice = choose(logits_RV, [RowState(GREEDY, (0,), 1)] * 5)
    together, tops = logprobs_of(logits_RV, choice.ids_R), [alternatives(logits_V, 2) for logits_V in logits_RV]
    alone = [logprobs_of(logits_RV[[row]], choice.ids_R[[row]])[0] for row in range(5)]
    told = zip(choice.ids_R.tolist(), choice.logprobs_R.tolist(), strict=True)
    assert list(told) == [top[0] for top in tops]
    assert choice.logprobs_R.tolist() == together.tolist() == alone


# --- entropy ---


@pytest.mark.parametrize("spread", [0.01, 1, 10, 300])
def test_the_entropy_is_the_mean_of_minus_log_p(spread):
    for logits_V in random_rows(20) * np.float32(spread):
        below_V = logits_V.astype(np.longdouble) - logits_V.max()
        probs_V = np.exp(below_V) / np.exp(below_V).sum()
        probs_V = probs_V[probs_V > 0]
        assert entropy_of(logits_V) == pytest.approx(float(-(probs_V * np.log(probs_V)).sum()), rel=1e-12, abs=1e-15)


def test_the_entropy_of_known_distributions():
    assert entropy_of(np.full(50_257, -7, np.float32)) == pytest.approx(math.log(50_257), rel=1e-14)
    assert entropy_of(np.log(np.array([0.5, 0.25, 0.25], np.float32))) == pytest.approx(1.5 * math.log(2), rel=1e-7)
    assert entropy_of(np.array([0, -np.inf, 0], np.float32)) == pytest.approx(math.log(2), rel=1e-15)
    assert entropy_of(np.array([0, -2000, -np.inf], np.float32)) == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_no_numbers_have_no_entropy(wrong):
    with pytest.raises(Gpt2kitError, match="not numbers"):
        entropy_of(np.array([0, wrong], np.float32))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_when_every_token_is_banned_the_request_is_refused(temperature):
    with pytest.raises(RequestError, match="every token is banned"):
        ever_chosen([1.0, 2.0], temperature=temperature, banned_ids=(0, 1))
