import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import ConfigError

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("temperature", -0.1, "0 or more"),
        ("temperature", NAN, "a finite number"),
        ("top_k", -1, "0 or more"),
        ("top_p", 0.0, r"in \(0, 1\]"),
        ("top_p", 1.1, r"in \(0, 1\]"),
        ("top_p", float("inf"), "a finite number"),
        ("min_p", -0.1, r"in \[0, 1\]"),
        ("min_p", 1.1, r"in \[0, 1\]"),
        ("typical_p", 0.0, r"in \(0, 1\]"),
        ("typical_p", 1.1, r"in \(0, 1\]"),
        ("repetition_penalty", 0.0, "above 0"),
        ("no_repeat_ngram", -1, "0 or more"),
        ("seed", -1, r"in \[0, 2\*\*64\)"),
        ("seed", 2**64, r"in \[0, 2\*\*64\)"),
    ],
)
def test_an_impossible_setting_is_refused_with_its_limit(name, value, limit):
    with pytest.raises(ConfigError, match=f"^{name} must be {limit}, got {value}"):
        SamplingConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0), ("top_p", 1), ("min_p", 1), ("typical_p", 1), ("seed", 0), ("seed", 2**64 - 1)],
)
def test_the_limits_themselves_are_allowed(name, value):
    assert getattr(SamplingConfig(**{name: value}), name) == value


# In nshepperd's sample.py top_p 0 means: use top_k.
@pytest.mark.parametrize("chain", ["openai", "nshepperd", "gpt2-ml"])
def test_the_old_chains_take_a_top_p_of_zero(chain):
    assert SamplingConfig(chain=chain, top_p=0.0).top_p == 0


@pytest.mark.parametrize("chain", ["openai", "nshepperd", "gpt2-ml"])
def test_the_old_chains_take_no_top_p_above_one(chain):
    with pytest.raises(ConfigError, match=r"^top_p must be in \[0, 1\], got 2"):
        SamplingConfig(chain=chain, top_p=2)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("max_new_tokens", 0, "max_new_tokens must be 1 or more, got 0"),
        ("min_new_tokens", -1, "min_new_tokens must be 0 or more, got -1"),
        ("stop", ("\n", ""), "a stop string must not be empty"),
    ],
)
def test_an_impossible_ending_is_refused(name, value, problem):
    with pytest.raises(ConfigError, match=f"^{problem}$"):
        StopConfig(**{name: value})


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("fox", ""), "a banned word must not be empty"),
        (("fox", "\ud83d"), "a banned word must be text; half a surrogate pair is none"),
    ],
)
def test_a_banned_word_that_no_text_can_hold_is_refused(words, problem):
    with pytest.raises(ConfigError, match=f"^{problem}$"):
        SamplingConfig(banned_words=words)


def test_a_banned_word_may_be_a_blank_and_hold_any_character():
    assert SamplingConfig(banned_words=(" ", "\n", "月", "🙂")).banned_words == (" ", "\n", "月", "🙂")


@pytest.mark.parametrize("bias", [NAN, float("inf"), float("-inf")])
def test_a_bias_is_a_finite_number(bias):
    with pytest.raises(ConfigError, match=r"^logit_bias holds finite numbers"):
        SamplingConfig(logit_bias={5: bias})


@pytest.mark.parametrize(
    "settings",
    [
        {"logit_bias": {5: 1e10}},
        {"presence_penalty": -1e10},
        {"frequency_penalty": 1e10},
        {"repetition_penalty": 1e10},
        {"repetition_penalty": 1e-320},
    ],
    ids=str,
)
def test_what_a_float32_logit_cannot_take_is_refused(settings):
    with pytest.raises(ConfigError, match=r"^logit_bias and penalties must be within 1e9"):
        SamplingConfig(**settings)


@pytest.mark.parametrize(
    ("kind", "settings", "problem"),
    [
        (SamplingConfig, {"chain": "gpt3"}, "chain must be one of standard, openai, nshepperd, gpt2-ml, got 'gpt3'"),
        (StopConfig, {"overflow": "cut"}, "overflow must be one of slide, stop, error, got 'cut'"),
        (SamplingConfig, {"banned_words": "fox"}, "banned_words must be a tuple of strings, got the string 'fox'"),
        (StopConfig, {"stop": "END"}, "stop must be a tuple of strings, got the string 'END'"),
    ],
)
def test_a_slip_of_the_pen_is_refused(kind, settings, problem):
    with pytest.raises(ConfigError, match=f"^{problem}$"):
        kind(**settings)


def test_in_nshepperds_chain_a_top_k_that_nothing_would_heed_is_refused():
    with pytest.raises(ConfigError, match=r"set top_p to 0$"):
        SamplingConfig(chain="nshepperd", top_k=40)
    assert SamplingConfig(chain="nshepperd", top_k=40, top_p=0).top_k == 40
