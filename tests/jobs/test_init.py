import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.jobs.init import init


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, model):
    """A tiny model on the golden vocabulary: its directory and its tensors by transformers' names."""
    directory = tmp_path_factory.mktemp("models") / "fresh"
    init("tiny", model, directory)
    return directory, load_file(directory / "model.safetensors")


def test_a_new_model_opens_in_transformers_in_the_size_asked_for(fresh, transformers):
    config = transformers.GPT2LMHeadModel.from_pretrained(fresh[0]).config
    assert (config.n_embd, config.n_layer, config.n_head, config.n_positions) == (64, 2, 2, 128)


def test_a_new_model_has_as_many_tokens_as_its_vocabulary(fresh, model, transformers):
    tokenizer = transformers.AutoTokenizer.from_pretrained(fresh[0])
    stored = json.loads((fresh[0] / "config.json").read_text(encoding="utf-8"))
    assert stored["vocab_size"] == len(tokenizer) == 320
    assert stored["eos_token_id"] == tokenizer.eos_token_id


def test_a_new_model_brings_its_vocabulary(fresh, model):
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        assert (fresh[0] / name).read_bytes() == (model / name).read_bytes()


@pytest.mark.parametrize(
    ("ending", "spread"),
    [
        ("wte.weight", 0.02),
        ("wpe.weight", 0.01),
        ("c_attn.weight", 0.02),
        ("c_fc.weight", 0.02),
        ("c_proj.weight", 0.02 / math.sqrt(4)),  # two layers put four projections into the residual stream
    ],
)
def test_weights_are_spread_as_openai_spread_them(fresh, ending, spread):
    found = [tensor for name, tensor in fresh[1].items() if name.endswith(ending)]
    assert found
    for tensor in found:
        assert tensor.std() == pytest.approx(spread, rel=0.05)
        assert abs(tensor.mean()) < spread / 10


def test_biases_begin_at_0_and_gains_at_1(fresh):
    for name, tensor in fresh[1].items():
        if name.endswith("bias"):
            assert not tensor.any()
        elif ".ln_" in name:
            assert (tensor == 1).all()


def test_no_two_matrices_are_drawn_alike(fresh):
    starts = {tensor.flat[:8].tobytes() for name, tensor in fresh[1].items() if tensor.ndim == 2}
    assert len(starts) == sum(tensor.ndim == 2 for tensor in fresh[1].values())


def test_the_same_seed_makes_the_same_model(fresh, here, model):
    init("tiny", model, here / "again")
    assert (here / "again" / "model.safetensors").read_bytes() == (fresh[0] / "model.safetensors").read_bytes()


def test_another_seed_makes_another_model(fresh, here, model):
    init("tiny", model, here / "other", seed=1)
    other = load_file(here / "other" / "model.safetensors")
    assert not np.array_equal(other["transformer.wte.weight"], fresh[1]["transformer.wte.weight"])


def test_a_model_is_never_overwritten(fresh, model):
    before = (fresh[0] / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="fresh: holds a model already"):
        init("tiny", model, fresh[0], seed=1)
    assert (fresh[0] / "model.safetensors").read_bytes() == before


def test_a_model_may_be_made_where_its_vocabulary_is(here, model):
    for name in ("vocab.json", "merges.txt"):
        (here / name).write_bytes((model / name).read_bytes())
    init("tiny", here, here)
    assert (here / "model.safetensors").is_file()


def test_an_unknown_size_is_answered_with_the_known_ones(here, model):
    with pytest.raises(ConfigError, match=r"no size 'huge'; there are tiny, small, 124M, 355M, 774M, 1558M"):
        init("huge", model, here / "new")


def test_a_missing_vocabulary_is_refused_with_the_command_that_makes_one(here):
    with pytest.raises(FormatError, match=r"^nowhere: no such directory.*gpt2 tokenizer train"):
        init("tiny", (here / "nowhere").relative_to(here), here / "new")


def test_a_directory_without_a_vocabulary_is_refused(here):
    (here / "empty").mkdir()
    with pytest.raises(FormatError, match="no vocabulary"):
        init("tiny", here / "empty", here / "new")
    assert not (here / "new").exists()
