"""The network while it learns: dropout, recomputing, and attention in 16 bits."""

import pytest
import torch
from torch.nn import functional as F

from gpt2kit.config.model import ModelConfig
from gpt2kit.formats import huggingface
from gpt2kit.model.gpt2 import SHORT_WINDOW, Attention, plain_attention
from gpt2kit.model.weights import to_network


@pytest.fixture
def make_network(tiny_checkpoint):
    def make(dropout=0.0):
        return to_network(tiny_checkpoint.config, tiny_checkpoint.tensors, dropout)

    return make


@pytest.fixture(scope="module", name="ids_BT")
def some_ids():
    return torch.randint(320, (3, 40), generator=torch.Generator().manual_seed(0))


# --- dropout ---


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_is_transformers_to_the_last_dropped_number(make_network, transformers, golden, ids_BT, rate):
    """Both draw from torch's generator: the same numbers, if they drop in the same places in the same order."""
    rates = {"resid_pdrop": rate, "embd_pdrop": rate, "attn_pdrop": rate}
    judge = transformers.GPT2LMHeadModel.from_pretrained(
        golden / "hf-safetensors", attn_implementation="eager", **rates
    )
    logits = []
    for model in (make_network(rate).train(), judge.train()):
        torch.manual_seed(0)
        logits.append(model(ids_BT))
    torch.testing.assert_close(logits[0], logits[1].logits, atol=1e-4, rtol=1e-4)


def test_dropout_is_for_learning_only(make_network, ids_BT):
    dropping, plain = make_network(0.5), make_network()
    assert torch.equal(dropping.eval()(ids_BT), plain.eval()(ids_BT))
    assert not torch.allclose(dropping.train()(ids_BT), plain.train()(ids_BT), atol=1e-2)


def test_without_dropout_learning_draws_no_random_numbers(make_network, ids_BT):
    before = torch.get_rng_state()
    make_network().train()(ids_BT)
    assert torch.equal(torch.get_rng_state(), before)


# --- recomputing ---


def gradients(network, ids_BT):
    torch.manual_seed(0)
    network(ids_BT).square().mean().backward()
    return [weight.grad for weight in network.parameters()]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_gives_the_same_gradients_bit_for_bit(make_network, ids_BT, dropout):
    keeping, recomputing = make_network(dropout).train(), make_network(dropout).train()
    recomputing.recompute = True
    pairs = zip(gradients(keeping, ids_BT), gradients(recomputing, ids_BT), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def kept_bytes(network, ids_BT):
    """Of all that the forward pass keeps for learning, each storage once."""
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = network.hidden(ids_BT)
    assert result.requires_grad
    return sum(size for place, size in storages.items() if place not in weights)


def test_recomputing_keeps_less_than_a_quarter(make_network, ids_BT):
    keeping, recomputing = make_network().train(), make_network().train()
    recomputing.recompute = True
    assert kept_bytes(recomputing, ids_BT) < kept_bytes(keeping, ids_BT) / 4


def test_recomputing_does_not_concern_a_network_that_is_only_read(make_network, ids_BT):
    plain, recomputing = make_network().eval(), make_network().eval()
    recomputing.recompute = True
    with torch.no_grad():
        assert torch.equal(plain(ids_BT), recomputing(ids_BT))


# --- attention ---


def queries_keys_values(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, length, 8, generator=generator).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("length", [1, 2, 17, 256])
@pytest.mark.parametrize("scale", [8**-0.5, 1.0, 0.01])
def test_plain_attention_is_torchs(length, scale):
    inputs = queries_keys_values(length)
    found = plain_attention(*inputs, scale, 0.0)
    expected = F.scaled_dot_product_attention(*inputs, is_causal=True, scale=scale)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    slope = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, slope), torch.autograd.grad(expected, inputs, slope), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_plain_attention_drops_as_torchs():
    inputs, results = queries_keys_values(17), []
    torch.manual_seed(0)
    results.append(plain_attention(*inputs, 0.5, 0.3))
    torch.manual_seed(0)
    results.append(F.scaled_dot_product_attention(*inputs, dropout_p=0.3, is_causal=True, scale=0.5))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [3, SHORT_WINDOW, SHORT_WINDOW + 1])
@pytest.mark.parametrize("by_layer", [False, True])
def test_attention_in_bf16_is_near_float32_on_both_sides_of_the_border(length, by_layer):
    shape = {"vocab_size": 9, "window": 300, "width": 16, "layers": 4, "heads": 2, "inner_width": 16}
    torch.manual_seed(0)
    attention = Attention(ModelConfig(**shape, scale_attention_by_layer=by_layer), layer=3, dropout=0.0)
    x_BTD = 3 * torch.randn(2, length, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(x_BTD)
    exact = attention(x_BTD)
    assert found.dtype == torch.bfloat16
    assert (found - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_in_16_bits_gradients_are_near_those_in_32(make_network, ids_BT, precision):
    exact = gradients(make_network().train(), ids_BT)
    with torch.autocast("cpu", precision):
        found = gradients(make_network().train(), ids_BT)
    for ours, theirs in zip(found, exact, strict=True):
        assert (ours - theirs).norm() < 0.1 * theirs.norm()


# --- the head ---


def test_a_tied_head_is_the_embedding_itself(make_network):
    network = make_network()
    assert network.head_weight is network.wte.weight


def test_an_untied_head_is_a_matrix_of_its_own(golden):
    checkpoint = huggingface.read(golden / "hf-variants" / "untied")
    network = to_network(checkpoint.config, checkpoint.tensors)
    expected = checkpoint.tensors["lm_head.weight"].read()
    assert torch.equal(network.head_weight, torch.from_numpy(expected.copy()))


@pytest.mark.parametrize("untied", [False, True])
def test_logits_are_hidden_states_times_the_head(golden, tiny_checkpoint, ids_BT, untied):
    checkpoint = huggingface.read(golden / "hf-variants" / "untied") if untied else tiny_checkpoint
    network = to_network(checkpoint.config, checkpoint.tensors)
    torch.testing.assert_close(network(ids_BT), network.hidden(ids_BT) @ network.head_weight.t())
