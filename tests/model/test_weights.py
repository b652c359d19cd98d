from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_file_for_torch

from gpt2kit.formats import huggingface
from gpt2kit.model.weights import canonical_tensors, to_network


@pytest.fixture
def network(tiny_checkpoint):
    return to_network(tiny_checkpoint.config, tiny_checkpoint.tensors)


@pytest.fixture(scope="module")
def stored(golden):
    """The same weights, as the safetensors library reads them."""
    return load_file(golden / "hf-safetensors" / "base_model_noprefix" / "model.safetensors")


def test_parameters_have_the_names_that_transformers_stores(network, stored):
    assert set(network.state_dict()) == set(stored)


def test_there_and_back_is_exact_to_the_bit(tiny_checkpoint, network, stored):
    tensors = canonical_tensors(tiny_checkpoint.config, network.state_dict())
    assert {name: tensor.read().tobytes() for name, tensor in tensors.items()} == {
        name: values.tobytes() for name, values in stored.items()
    }


def test_an_untied_head_travels_unturned(golden):
    directory = golden / "hf-variants" / "untied"
    checkpoint = huggingface.read(directory)
    tensors = canonical_tensors(checkpoint.config, to_network(checkpoint.config, checkpoint.tensors).state_dict())
    expected = load_file(directory / "model.safetensors")["lm_head.weight"]
    np.testing.assert_array_equal(tensors["lm_head.weight"].read(), expected)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_widens_as_in_torch(golden, precision):
    directory = golden / "hf-halfprec" / precision
    checkpoint = huggingface.read(directory)
    network = to_network(checkpoint.config, checkpoint.tensors)
    expected = load_file_for_torch(directory / "model.safetensors")["transformer.wte.weight"].float()
    assert torch.equal(network.wte.weight, expected)


# Square, so that both orientations load; the logits in test_gpt2.py hold only for this one.
@pytest.mark.parametrize("name", ["h.0.attn.c_proj.weight", "h.0.attn.c_attn.weight", "h.2.mlp.c_proj.weight"])
def test_matrices_stand_turned_in_the_network(network, stored, name):
    np.testing.assert_array_equal(network.state_dict()[name].numpy(), stored[name].T)


def test_an_unturned_square_matrix_gives_other_logits(golden, network, stored):
    expected = np.load(golden / "hf-safetensors" / "expected.npz")
    with torch.inference_mode():
        network.h[0].attn.c_proj.weight.copy_(torch.from_numpy(stored["h.0.attn.c_proj.weight"]))
        logits_BTV = network(torch.tensor(expected["tokens_1"])).numpy()
    assert np.abs(logits_BTV - expected["logits_1"]).max() > 1e-2


@pytest.mark.parametrize("name", ["wte.weight", "wpe.weight", "ln_f.bias"])
def test_tables_and_vectors_stand_as_stored(network, stored, name):
    np.testing.assert_array_equal(network.state_dict()[name].numpy(), stored[name])


def test_the_network_owns_its_memory(tiny_checkpoint, network, stored):
    with torch.no_grad():
        network.wte.weight.zero_()
    np.testing.assert_array_equal(tiny_checkpoint.tensors["wte.weight"].read(), stored["wte.weight"])


def test_it_owns_the_memory_of_matrices_that_lie_turned_in_their_file(tiny_checkpoint):
    """As those of nanoGPT and GGUF do, mapped and never to be written to."""
    lying = {name: np.asfortranarray(tensor.read()) for name, tensor in tiny_checkpoint.tensors.items()}
    tensors = {name: replace(tiny_checkpoint.tensors[name], load=lambda name=name: lying[name]) for name in lying}
    parameters = dict(to_network(tiny_checkpoint.config, tensors).named_parameters())
    assert not any(np.shares_memory(parameters[name].detach().numpy(), lying[name]) for name in lying)


def test_every_parameter_can_learn(network):
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_half_precision_network_is_stored_in_float32(tiny_checkpoint, network, stored):
    tensors = canonical_tensors(tiny_checkpoint.config, network.bfloat16().state_dict())
    rounded = torch.from_numpy(stored["wpe.weight"]).bfloat16().float().numpy()
    np.testing.assert_array_equal(tensors["wpe.weight"].read(), rounded)
