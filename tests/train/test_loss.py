import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gpt2kit.data.batches import batch_at
from gpt2kit.train.loss import batch_loss, cross_entropy

TOKENS, WIDTH, VOCABULARY = 37, 24, 97


@pytest.fixture
def given():
    """Hidden states, a head and targets, every third of which is to be ignored."""
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(TOKENS, WIDTH, generator=generator).requires_grad_()
    head_VD = torch.randn(VOCABULARY, WIDTH, generator=generator).requires_grad_()
    targets_N = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    targets_N[::3] = -100
    return hidden_ND, head_VD, targets_N


def loss_of(given, chunk=512, dtype=torch.float32, scale=1.0):
    return cross_entropy(*given, chunk=chunk, dtype=dtype, scale=scale)


def with_gradients(given, loss):
    return [loss.detach(), *torch.autograd.grad(loss, given[:2])]


def torchs(given, scale=1.0, dtype=torch.float64):
    """torch's loss of the whole logits, and its gradients."""
    hidden_ND, head_VD, targets_N = given
    logits_NV = hidden_ND.to(dtype) @ head_VD.to(dtype).t()
    return with_gradients(given, F.cross_entropy(logits_NV, targets_N, reduction="sum") * scale)


def distance(found, expected):
    """The largest of the relative distances between tensors."""
    return max(((f - e).norm() / e.norm()).item() for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("chunk", [1, 5, 12, 36, 37, 38, 1000])
def test_loss_and_gradients_are_torchs_of_the_whole_logits(given, chunk):
    assert distance(with_gradients(given, loss_of(given, chunk)), torchs(given)) < 1e-6


@pytest.mark.parametrize("scale", [1 / 4096, 3.0, 65536.0])
def test_a_scale_multiplies_loss_and_gradients(given, scale):
    assert distance(with_gradients(given, loss_of(given, 5, scale=scale)), torchs(given, scale)) < 1e-6


def test_whatever_follows_the_loss_reaches_the_gradients(given):
    assert distance(with_gradients(given, loss_of(given) * -7.0), torchs(given, -7.0)) < 1e-6


def test_no_gradient_comes_from_an_ignored_target(given):
    _, hidden_grad_ND, _ = with_gradients(given, loss_of(given, 5))
    assert (hidden_grad_ND[::3] == 0).all()
    assert (hidden_grad_ND[1::3] != 0).any(1).all()


def test_where_every_target_is_ignored_there_is_nothing_to_learn(given):
    hidden_ND, head_VD, targets_N = given
    loss, *grads = with_gradients(given, loss_of((hidden_ND, head_VD, torch.full_like(targets_N, -100)), 5))
    assert loss == 0
    assert all((grad == 0).all() for grad in grads)


def test_logits_far_apart_give_what_torch_gives(given):
    hidden_ND, head_VD, targets_N = given
    far = (hidden_ND.detach().mul(100).requires_grad_(), head_VD, targets_N)
    assert distance(with_gradients(far, loss_of(far, 5)), torchs(far)) < 1e-6


@pytest.mark.parametrize("chunk", [5, 512])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_it_is_as_close_to_float32_as_torchs_autocast(given, dtype, chunk):
    with torch.autocast("cpu", dtype):
        logits_NV = F.linear(given[0], given[1])
        loss = F.cross_entropy(logits_NV.float(), given[2], reduction="sum")
    autocast = distance(with_gradients(given, loss), torchs(given))
    found = distance(with_gradients(given, loss_of(given, chunk, dtype)), torchs(given))
    assert 1e-5 < found < 1.5 * autocast


def test_gradients_stay_float32_for_float32_inputs(given):
    assert {grad.dtype for grad in with_gradients(given, loss_of(given, dtype=torch.bfloat16))} == {torch.float32}


def test_the_scale_comes_before_16_bits_lose_small_gradients():
    """The other token is so unlikely that what it learns, some 1e-8, would round to nothing in float16."""
    hidden_ND = torch.tensor([[18.0, 0.0]], requires_grad=True)
    given = (hidden_ND, torch.eye(2, requires_grad=True), torch.tensor([0]))
    _, _, head_grad_VD = with_gradients(given, loss_of(given, dtype=torch.float16, scale=2.0**15))
    assert head_grad_VD[1, 0].item() == pytest.approx(2.0**15 * 18 * math.exp(-18), rel=1e-3)


class Watch(TorchDispatchMode):
    """Notes the size of every tensor that any operation gives, and how many products of matrices there were."""

    def __init__(self):
        super().__init__()
        self.sizes, self.products = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.products += function is torch.ops.aten.mm.default
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.sizes.append(tuple(tensor.shape))
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logits_of_more_than_a_chunk_never_exist(dtype):
    """Nothing is larger than a chunk of logits, and these are larger than the head and the hidden states."""
    given = (torch.randn(300, 4).requires_grad_(), torch.randn(200, 4).requires_grad_(), torch.arange(300) % 200)
    with Watch() as watch:
        with_gradients(given, loss_of(given, 16, dtype))
    assert max(torch.Size(size).numel() for size in watch.sizes) == 16 * 200


def test_without_learning_the_loss_is_the_same_and_no_gradient_is_sought(given):
    expected = loss_of(given, 5).detach()
    with torch.no_grad(), Watch() as watch:
        found = loss_of(given, 5)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert watch.products == 8, "one for every 5 of 37 tokens"


@pytest.mark.parametrize("chunk", [7, 512])
def test_of_a_network_every_weight_learns_what_torchs_loss_would_teach_it(network, text, chunk):
    """The embedding learns as the head that it is, and as itself."""
    batch = batch_at(text, 0, 0, 3)
    found = torch.autograd.grad(
        batch_loss(network.hidden, network.head_weight, batch, "fp32", chunk=chunk, scale=1 / 48),
        list(network.parameters()),
    )
    logits_BTV = network(torch.from_numpy(batch.inputs_BT))
    loss = F.cross_entropy(logits_BTV.flatten(0, 1), torch.from_numpy(batch.targets_BT).flatten())
    assert distance(found, torch.autograd.grad(loss, list(network.parameters()))) < 1e-5


def test_a_network_computes_in_the_precision_asked_for(network, text):
    batch = batch_at(text, 0, 0, 3)
    losses = {
        precision: batch_loss(network.hidden, network.head_weight, batch, precision, chunk=512).item() / 48
        for precision in ("fp32", "bf16", "fp16")
    }
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=1e-2)
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=1e-3)
    assert len(set(losses.values())) == 3
