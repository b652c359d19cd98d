import numpy as np
import pytest

from gpt2kit.config.model import SIZES
from gpt2kit.model.initial import initial_checkpoint

CONFIG = SIZES["tiny"].config(2000)  # 2 layers, so 4 projections into the residual stream
# Radford et al. 2019, section 2.3, and OpenAI's model.py.
SPREADS = {
    "wte.weight": 0.02,
    "wpe.weight": 0.01,
    "h.0.attn.c_attn.weight": 0.02,
    "h.1.mlp.c_fc.weight": 0.02,
    "h.0.attn.c_proj.weight": 0.02 / np.sqrt(4),
    "h.1.mlp.c_proj.weight": 0.02 / np.sqrt(4),
}


@pytest.fixture(scope="module")
def tensors():
    return initial_checkpoint(CONFIG, {}, seed=0).tensors


@pytest.mark.parametrize(("name", "spread"), SPREADS.items())
def test_weights_spread_as_gpt2s(tensors, name, spread):
    # The deviation of n draws wavers by 1 in sqrt(2n).
    values = tensors[name].read()
    assert values.std() == pytest.approx(spread, rel=5 / np.sqrt(2 * values.size))


@pytest.mark.parametrize(("name", "spread"), SPREADS.items())
def test_weights_are_centred(tensors, name, spread):
    values = tensors[name].read()
    assert abs(values.mean()) < 5 * spread / np.sqrt(values.size)


def test_more_layers_make_smaller_projections():
    deep = initial_checkpoint(SIZES["small"].config(300), {}, seed=0).tensors["h.0.attn.c_proj.weight"].read()
    assert deep.std() == pytest.approx(0.02 / np.sqrt(8), rel=0.02)


@pytest.mark.parametrize("name", ["h.0.ln_1.weight", "h.1.ln_2.weight", "ln_f.weight"])
def test_gains_start_at_one(tensors, name):
    np.testing.assert_array_equal(tensors[name].read(), 1)


@pytest.mark.parametrize("name", ["h.0.ln_1.bias", "h.1.attn.c_attn.bias", "h.0.mlp.c_proj.bias", "ln_f.bias"])
def test_biases_start_at_zero(tensors, name):
    np.testing.assert_array_equal(tensors[name].read(), 0)


def test_tensors_are_what_they_promise(tensors):
    promised = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    assert {name: (t.read().shape, str(t.read().dtype)) for name, t in tensors.items()} == promised


def draw(seed, name="h.0.attn.c_attn.weight"):
    return initial_checkpoint(CONFIG, {}, seed).tensors[name].read()


def test_the_same_seed_gives_the_same_weights():
    np.testing.assert_array_equal(draw(7), draw(7))


def test_reading_twice_gives_the_same_weights(tensors):
    np.testing.assert_array_equal(tensors["wte.weight"].read(), tensors["wte.weight"].read())


@pytest.mark.parametrize("seed", [0, 2**53, 2**62, 2**63, 2**64 - 2])
def test_the_next_seed_gives_other_weights(seed):
    assert not np.array_equal(draw(seed), draw(seed + 1))


def test_no_two_matrices_are_alike(tensors):
    assert not np.array_equal(tensors["h.0.mlp.c_fc.weight"].read(), tensors["h.1.mlp.c_fc.weight"].read())


def test_the_tokenizer_files_come_along():
    assert initial_checkpoint(CONFIG, {"vocab.json": b"{}"}, seed=0).tokenizer_files == {"vocab.json": b"{}"}
