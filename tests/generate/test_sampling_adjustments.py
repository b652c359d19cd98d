"""What changes logits before the filters: each setting against the plainest program that does the same."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.errors import RequestError
from gpt2kit.generate.sampling import RowState, choose

VOCAB = 6
IDS = st.integers(0, VOCAB - 1)
TEXTS = st.lists(IDS, min_size=1, max_size=12)
LOGITS = st.lists(st.integers(-24, 24).map(lambda n: n / 8), min_size=VOCAB, max_size=VOCAB)
SOME_IDS = st.lists(IDS, max_size=VOCAB - 1, unique=True)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "logit_bias": st.dictionaries(IDS, st.integers(-16, 16).map(lambda n: n / 4), max_size=3),
        "repetition_penalty": st.sampled_from([0.5, 1.25, 2.0]),
        "presence_penalty": st.sampled_from([-0.5, 0.75]),
        "frequency_penalty": st.sampled_from([-0.25, 0.5]),
        "no_repeat_ngram": st.integers(1, 3),
        "banned_ids": SOME_IDS.map(tuple),
        "chain": st.sampled_from(["openai", "nshepperd", "gpt2-ml"]),
    },
)


def adjusted(logits, settings, prompt, written, banned):
    """The logits after everything that is asked for, one step after the other."""
    ids, logits = prompt + written, list(logits)
    for id, bias in settings.get("logit_bias", {}).items():
        logits[id] += bias
    for id in set(ids):
        factor = settings.get("repetition_penalty", 1)
        logits[id] = logits[id] / factor if logits[id] > 0 else logits[id] * factor
    for id in set(written):
        logits[id] -= settings.get("presence_penalty", 0) + settings.get("frequency_penalty", 0) * written.count(id)
    gone = {*settings.get("banned_ids", ()), *banned}
    if settings.get("chain") == "gpt2-ml":
        gone.add(0)
    if n := settings.get("no_repeat_ngram"):
        ngrams = [ids[at : at + n] for at in range(len(ids) - n + 1)]
        gone |= {id for id in range(VOCAB) if [*ids, id][-n:] in ngrams}
    return [-math.inf if id in gone else logit for id, logit in enumerate(logits)]


def drawn_from(logits, uniform):
    """The id whose slice of [0, 1) holds `uniform`, slices as wide as the probabilities and in order of id."""
    weights = [math.exp(logit) for logit in logits]
    reached = 0.0
    for id, weight in enumerate(weights):
        assume(abs(reached - uniform) > 1e-5)
        reached += weight / sum(weights)
        if uniform < reached:
            return id
    raise AssertionError(f"{uniform} is beyond {reached}")


def chosen(logits, sampling, prompt, written, banned=()):
    state = RowState(sampling, prompt + written, len(prompt), banned=banned)
    return int(choose(np.array([logits], np.float32), [state]).ids_R[0])


@pytest.mark.slow
@given(LOGITS, SETTINGS, TEXTS, st.lists(IDS, max_size=8), SOME_IDS, st.integers(0, 99))
def test_whatever_is_asked_for_the_choice_is_that_of_a_plain_program(logits, settings, prompt, written, banned, seed):
    expected = adjusted(logits, settings, prompt, written, banned)
    sampling = SamplingConfig(seed=seed, **settings)
    greedy = replace(sampling, temperature=0)
    if max(expected) == -math.inf:
        for refused in (sampling, greedy):
            with pytest.raises(RequestError, match="every token is banned"):
                chosen(logits, refused, prompt, written, banned)
        return
    philox = np.random.Philox(key=[seed, 0], counter=[len(prompt + written), 0, 0, 0])
    uniform = np.random.Generator(philox).random()
    assert chosen(logits, sampling, prompt, written, banned) == drawn_from(expected, uniform)
    likeliest = max(expected)
    assume(all(logit == likeliest or logit < likeliest - 1e-5 for logit in expected))
    assert chosen(logits, greedy, prompt, written, banned) == expected.index(likeliest)


@given(LOGITS, SETTINGS, TEXTS, TEXTS, SOME_IDS)
def test_forced_ids_win_over_everything_and_then_the_rest_goes_on(logits, settings, prompt, forced, banned):
    sampling = SamplingConfig(seed=1, **settings, forced_ids=tuple(forced))
    written = []
    for _ in forced:
        written.append(chosen(logits, sampling, prompt, written, banned))
    assert written == forced
    assume(max(adjusted(logits, settings, prompt, written, banned)) > -math.inf)
    free = replace(sampling, forced_ids=())
    assert chosen(logits, sampling, prompt, written, banned) == chosen(logits, free, prompt, written, banned)


def test_a_forced_id_may_be_banned_and_of_no_probability():
    sampling = SamplingConfig(temperature=0, forced_ids=(1,), banned_ids=(1,), logit_bias={1: -1e9})
    assert chosen([9.0, 0.0], sampling, [0], [], banned=(1,)) == 1


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_the_ids_banned_at_a_step_may_come_as_any_sequence(kind):
    assert chosen([3.0, 2.0, 1.0], SamplingConfig(temperature=0), [0], [], banned=kind([0, 1, 1])) == 2


def test_an_end_before_the_minimum_length_is_never_chosen_however_likely():
    sampling = [SamplingConfig(seed=seed) for seed in range(200)]
    assert {chosen([0.0, 30.0, 1.0], one, [0], [], banned=(1,)) for one in sampling} == {0, 2}


# --- the order ---


def test_the_bias_comes_before_the_repetition_penalty():
    """1 - 2 = -1, times 2 is -2, which is less than -1.5; 1 / 2 - 2 is not."""
    sampling = SamplingConfig(temperature=0, logit_bias={0: -2.0}, repetition_penalty=2.0)
    assert chosen([1.0, -1.5], sampling, [0], []) == 1


def test_the_repetition_penalty_comes_before_the_presence_penalty():
    """4 / 2 - 3 = -1, which is less than 0.25; (4 - 3) / 2 is not."""
    sampling = SamplingConfig(temperature=0, repetition_penalty=2.0, presence_penalty=3.0)
    assert chosen([4.0, 0.25], sampling, [0], [0]) == 1


def test_what_is_banned_takes_no_place_among_the_likeliest():
    """Of .5, .3, .15, .05 without the first, the two likeliest are the second and third."""
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    sampling = [SamplingConfig(seed=seed, top_k=2, banned_ids=(0,)) for seed in range(200)]
    assert {chosen(logits, one, [0], []) for one in sampling} == {1, 2}
