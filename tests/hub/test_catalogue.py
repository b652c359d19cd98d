import pytest

from gpt2kit.hub.catalogue import KNOWN_MODELS, find, suggestion

# Every name the released models have gone by: OpenAI's repository, its press releases, Hugging Face's hub.
NAMES = {
    "124M": ["124M", "117M", "gpt2", "openai-community/gpt2", "hf:openai-community/gpt2"],
    "355M": ["355M", "345M", "gpt2-medium", "openai-community/gpt2-medium", "hf:openai-community/gpt2-medium"],
    "774M": ["774M", "762M", "gpt2-large", "openai-community/gpt2-large", "hf:openai-community/gpt2-large"],
    "1558M": ["1558M", "1542M", "1.5B", "gpt2-xl", "openai-community/gpt2-xl", "hf:openai-community/gpt2-xl"],
    "distilgpt2": ["distilgpt2", "distilbert/distilgpt2", "hf:distilbert/distilgpt2"],
}


@pytest.mark.parametrize(("model", "name"), [(model, name) for model, names in NAMES.items() for name in names])
def test_a_model_answers_to_every_name_it_has_gone_by(model, name):
    assert find(name).name == model


@pytest.mark.parametrize("name", ["", "gpt3", "124m", "openai-community", "gpt2 "])
def test_other_names_are_not_known(name):
    assert find(name) is None


def test_no_name_means_two_models():
    for model in KNOWN_MODELS:
        others = {name for other in KNOWN_MODELS if other is not model for name in other.names()}
        assert not others & set(model.names())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("gpt2-mediun", "gpt2-medium"), ("124m", "124M"), ("destilgpt2", "distilgpt2"), ("gpt2_large", "gpt2-large")],
)
def test_a_slip_is_understood(typed, meant):
    assert suggestion(typed) == meant


def test_what_is_like_no_name_suggests_nothing():
    assert suggestion("llama") is None
