import pytest

from gpt2kit.config.model import SIZES, ModelConfig
from gpt2kit.errors import ConfigError

SHAPE = {"vocab_size": 320, "window": 56, "width": 40, "layers": 3, "heads": 4, "inner_width": 160}


@pytest.mark.parametrize("name", SHAPE)
def test_no_size_may_be_zero(name):
    with pytest.raises(ConfigError, match=f"^{name} must be 1 or more, got 0$"):
        ModelConfig(**{**SHAPE, name: 0})


def test_the_heads_share_the_width_evenly():
    with pytest.raises(ConfigError, match="width 40 cannot be shared evenly by 3 heads"):
        ModelConfig(**{**SHAPE, "heads": 3})


def test_a_head_has_its_share_of_the_width():
    assert ModelConfig(**SHAPE).head_width == 10


# transformers' GPT2Attention: divided by sqrt(head width) if scale_attn_weights, and by layer + 1 if
# scale_attn_by_inverse_layer_idx. A head of width 16 makes round numbers.
@pytest.mark.parametrize(
    ("scaled", "by_layer", "layer", "scale"),
    [
        (True, False, 2, 0.25),
        (False, False, 2, 1.0),
        (True, True, 0, 0.25),
        (True, True, 1, 0.125),
        (False, True, 3, 0.25),
    ],
)
def test_scores_are_scaled_as_transformers_does(scaled, by_layer, layer, scale):
    config = ModelConfig(
        **{**SHAPE, "width": 64, "layers": 4}, scale_attention=scaled, scale_attention_by_layer=by_layer
    )
    assert config.attention_scale(layer) == scale


# Radford et al. 2019, table 2, and the hparams.json of each release.
@pytest.mark.parametrize(
    ("name", "width", "layers", "heads"),
    [("124M", 768, 12, 12), ("355M", 1024, 24, 16), ("774M", 1280, 36, 20), ("1558M", 1600, 48, 25)],
)
def test_the_released_sizes_are_openais(name, width, layers, heads):
    config = SIZES[name].config(50257)
    expected = ModelConfig(
        vocab_size=50257, window=1024, width=width, layers=layers, heads=heads, inner_width=4 * width
    )
    assert config == expected


@pytest.mark.parametrize("name", SIZES)
def test_every_size_is_a_possible_model(name):
    assert SIZES[name].config(257).vocab_size == 257
