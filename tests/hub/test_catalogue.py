import hashlib
import inspect

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


# n_layer, n_head, n_embd, as OpenAI's hparams.json tell them.
SHAPES = {"124M": (12, 12, 768), "355M": (24, 16, 1024), "774M": (36, 20, 1280), "1558M": (48, 25, 1600)}
HPARAMS = '{\n  "n_vocab": 50257,\n  "n_ctx": 1024,\n  "n_embd": %d,\n  "n_head": %d,\n  "n_layer": %d\n}\n'
CHECKPOINT = b'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'


def known_file(model, name):
    return next(file for file in find(model).files if file.name == name)


@pytest.mark.parametrize("model", SHAPES)
def test_the_weights_are_four_bytes_a_parameter(model):
    layers, _, width = SHAPES[model]
    parameters = (50257 + 1024) * width + layers * (12 * width**2 + 13 * width) + 2 * width
    assert find(model).parameters == parameters
    assert known_file(model, "model.ckpt.data-00000-of-00001").size == 4 * parameters


@pytest.mark.parametrize("model", SHAPES)
def test_the_files_are_those_of_openais_program_in_its_order(model):
    assert [file.name for file in find(model).files] == [
        *("checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001"),
        *("model.ckpt.index", "model.ckpt.meta", "vocab.bpe"),
    ]


@pytest.mark.parametrize("model", ["124M", "355M"])
def test_hashes_are_those_of_the_released_texts(model):
    layers, heads, width = SHAPES[model]
    hparams = (HPARAMS % (width, heads, layers)).encode()
    for name, content in (("hparams.json", hparams), ("checkpoint", CHECKPOINT)):
        known = known_file(model, name)
        assert (known.size, known.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_vocabulary_is_that_of_tiktokens_registry():
    from tiktoken_ext.openai_public import gpt2

    source = inspect.getsource(gpt2)
    for name in ("encoder.json", "vocab.bpe"):
        assert known_file("1558M", name).sha256 in source


def test_distilgpt2_is_only_on_the_hub():
    assert find("distilgpt2").files == ()
