import re
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.checkpoint import LazyTensor, tensor_shapes
from gpt2kit.config.model import SIZES, ModelConfig
from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.formats.shapes import config_from_shapes

SMALL = ModelConfig(vocab_size=300, window=40, width=40, layers=11, heads=5, inner_width=100)
PLACE = Path("some.bin")


def tensors_of(config):
    return {name: LazyTensor(name, "float32", shape, np.empty) for name, shape in tensor_shapes(config).items()}


@pytest.mark.parametrize("size", ["124M", "355M", "774M", "1558M"])
def test_every_released_size_is_known_by_its_shapes(size):
    config = SIZES[size].config(50257)
    with pytest.warns(
        UserWarning, match=r"some\.bin: config\.json is missing; .* the number of heads is in none of them"
    ):
        assert config_from_shapes(tensors_of(config), PLACE, "config.json") == config


def test_a_known_number_of_heads_needs_no_guess():
    assert config_from_shapes(tensors_of(SMALL), PLACE, "config.json", heads=5) == SMALL


def test_a_head_of_its_own_shows():
    untied = ModelConfig(vocab_size=9, window=4, width=4, layers=1, heads=1, inner_width=16, tied_head=False)
    assert config_from_shapes(tensors_of(untied), PLACE, "config.json", heads=1) == untied


def test_heads_that_cannot_be_guessed_are_asked_for():
    problem = "config.json is missing, and the number of heads cannot be guessed: 64 does not divide the width 40"
    with pytest.raises(FormatError, match=re.escape(problem)):
        config_from_shapes(tensors_of(SMALL), PLACE, "config.json")


@pytest.mark.parametrize("missing", ["wte.weight", "wpe.weight", "h.0.mlp.c_fc.weight"])
def test_other_tensors_are_told_from_a_gpt2s(missing):
    tensors = tensors_of(SMALL)
    del tensors[missing]
    with pytest.raises(WeightMismatch, match=r"some\.bin: not the tensors of a GPT-2; it holds w[tp]e\.weight \("):
        config_from_shapes(tensors, PLACE, "config.json", heads=5)


def test_shapes_that_no_model_has_are_refused():
    tensors = tensors_of(SMALL) | {"wpe.weight": LazyTensor("wpe.weight", "float32", (0, 40), np.empty)}
    with pytest.raises(WeightMismatch, match="not the shapes of a GPT-2: window must be 1 or more, got 0"):
        config_from_shapes(tensors, PLACE, "config.json", heads=5)
