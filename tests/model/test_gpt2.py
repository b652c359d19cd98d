from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt2kit.formats import huggingface
from gpt2kit.model.weights import to_network

CLOSE = 1e-4  # in these logits programs differ by 3e-6, the two forms of GELU by 1e-3


def logits_of(checkpoint, ids_BT):
    with torch.inference_mode():
        return to_network(checkpoint.config, checkpoint.tensors)(torch.tensor(ids_BT)).numpy()


def with_config(checkpoint, **changes):
    return replace(checkpoint, config=replace(checkpoint.config, **changes))


@pytest.fixture(scope="module")
def stored(golden):
    return np.load(golden / "hf-safetensors" / "expected.npz")


def test_logits_are_those_of_transformers(example):
    checkpoint = huggingface.read(example.directory)
    for ids_BT, expected_BTV in example.logits:
        np.testing.assert_allclose(logits_of(checkpoint, ids_BT), expected_BTV, atol=CLOSE)


def test_logits_are_far_from_those_of_another_model(golden, tiny_checkpoint):
    other = np.load(golden / "hf-v5" / "expected.npz")
    distance = np.abs(logits_of(tiny_checkpoint, other["tokens_0"]) - other["logits_0"]).max()
    assert distance > 0.1


@pytest.mark.parametrize("activation", ["gelu_exact", "relu"])
def test_another_activation_than_the_tanh_gelu_is_noticed(stored, tiny_checkpoint, activation):
    network = with_config(tiny_checkpoint, activation=activation)
    assert np.abs(logits_of(network, stored["tokens_2"]) - stored["logits_2"]).max() > 3 * CLOSE


def test_the_exact_gelu_is_told_from_the_tanh_form(golden):
    directory = golden / "hf-variants" / "gelu_exact_eps"
    expected = np.load(directory / "expected.npz")
    network = with_config(huggingface.read(directory), activation="gelu_tanh")
    assert np.abs(logits_of(network, expected["tokens_0"]) - expected["logits_0"]).max() > 3 * CLOSE


def test_without_scaling_by_layer_the_logits_are_those_of_plain_attention(golden):
    # What transformers 4.57.6 gave when it ignored the option: golden/README.md.
    directory = golden / "hf-variants" / "inv_layer_scale"
    plain = np.load(directory / "expected.npz")
    network = with_config(huggingface.read(directory), scale_attention_by_layer=False)
    np.testing.assert_allclose(logits_of(network, plain["tokens_0"]), plain["logits_0"], atol=CLOSE)


def test_unscaled_attention_is_that_of_transformers(transformers, golden, stored, tiny_checkpoint):
    judge = transformers.GPT2LMHeadModel.from_pretrained(
        golden / "hf-safetensors", scale_attn_weights=False, attn_implementation="eager"
    )
    with torch.inference_mode():
        expected_BTV = judge.eval()(torch.tensor(stored["tokens_1"])).logits.numpy()
    unscaled = with_config(tiny_checkpoint, scale_attention=False)
    np.testing.assert_allclose(logits_of(unscaled, stored["tokens_1"]), expected_BTV, atol=CLOSE)


def test_no_position_sees_a_later_one(stored, tiny_checkpoint):
    ids_BT, expected_BTV = stored["tokens_2"].copy(), stored["logits_2"]
    ids_BT[:, 30:] = 7
    np.testing.assert_allclose(logits_of(tiny_checkpoint, ids_BT)[:, :30], expected_BTV[:, :30], atol=CLOSE)
