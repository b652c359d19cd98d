import pytest
import torch

from gpt2kit.data.batches import batch_at
from gpt2kit.train.loss import batch_loss
from gpt2kit.train.optimizer import Optimizer

# GPT-2's matrices by their names in the checkpoint; everything else is a bias or a gain.
INNER = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
MATRICES = ("wte.weight", "wpe.weight", *INNER)


@pytest.fixture
def optimizer_of(recipe_of):
    def make(network, **changes):
        return Optimizer(network, recipe_of(**changes))

    return make


def gradients(network, seed):
    """The same random ones for every network of this shape."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def step(optimizer):
    for part in optimizer.parts:
        part.step()


def named(network, endings, *, others=False):
    return [weight for name, weight in network.named_parameters() if name.endswith(endings) != others]


def assert_as_torchs(ours, network, theirs, twin, steps=5):
    """Both networks get the same gradients, and afterwards have the same weights."""
    before = twin.wte.weight.detach().clone()
    for number in range(steps):
        for model in (network, twin):
            gradients(model, number)
        step(ours)
        for optimizer in theirs:
            optimizer.step()
    for (name, found), expected in zip(network.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5, msg=name)
    assert (twin.wte.weight - before).abs().max() > 1e-3, "the weights must have moved"


# --- AdamW ---


@pytest.mark.parametrize("changes", [{}, {"step_in_backward": True, "clip_norm": 0}], ids=["whole", "in backward"])
def test_adamw_is_torchs_with_decay_on_matrices_only(make_network, recipe_of, changes):
    network, twin = make_network(), make_network()
    recipe = recipe_of(learning_rate=1e-2, weight_decay=0.3, beta2=0.9, **changes)
    groups = [
        {"params": named(twin, MATRICES), "weight_decay": 0.3},
        {"params": named(twin, MATRICES, others=True), "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.9), eps=1e-8, foreach=False, fused=False)
    assert_as_torchs(Optimizer(network, recipe), network, [theirs], twin)


def without_gradient(network, optimizer):
    """The weights before and after a step: only decay can tell them apart."""
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    step(optimizer)
    return before, dict(network.named_parameters())


def test_matrices_decay_by_rate_times_decay(network, optimizer_of):
    before, after = without_gradient(network, optimizer_of(network, learning_rate=0.5, weight_decay=0.1))
    matrices = [name for name in before if name.endswith(MATRICES)]
    assert len(matrices) == 2 + 4 * network.config.layers
    for name in matrices:
        torch.testing.assert_close(after[name].detach(), before[name] * (1 - 0.5 * 0.1))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_biases_and_gains_do_not_decay(network, optimizer_of, kind):
    before, after = without_gradient(network, optimizer_of(network, optimizer=kind, weight_decay=0.5))
    for name in before:
        if not name.endswith(MATRICES):
            assert torch.equal(after[name], before[name]), name


# --- Muon ---


def test_muon_is_torchs_for_the_layers_matrices_and_adamw_for_the_rest(make_network, recipe_of):
    network, twin = make_network(), make_network()
    recipe = recipe_of(optimizer="muon", learning_rate=1e-2, muon_learning_rate=3e-2, weight_decay=0.2)
    tables = [twin.wte.weight, twin.wpe.weight]
    theirs = [
        torch.optim.Muon(named(twin, INNER), lr=3e-2, weight_decay=0.2),
        torch.optim.AdamW(tables, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.2, foreach=False),
        torch.optim.AdamW(named(twin, MATRICES, others=True), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    assert_as_torchs(Optimizer(network, recipe), network, theirs, twin)


def test_muon_remembers_one_moment_of_the_layers_matrices_alone(network, optimizer_of):
    optimizer = optimizer_of(network, optimizer="muon")
    with_one = {name for name, weight in network.named_parameters() if len(optimizer.remembers(weight)) == 1}
    assert with_one == {name for name, _ in network.named_parameters() if name.endswith(INNER)}


# --- what is remembered ---

KINDS = [{}, {"optimizer": "muon"}, {"step_in_backward": True, "clip_norm": 0}]


@pytest.mark.parametrize("changes", KINDS, ids=["adamw", "muon", "in backward"])
def test_every_parameter_is_remembered_once(network, optimizer_of, changes):
    remembered = [id(weight) for weight, _ in optimizer_of(network, **changes).memory()]
    assert sorted(remembered) == sorted(id(weight) for weight in network.parameters())


@pytest.mark.parametrize("changes", KINDS, ids=["adamw", "muon", "in backward"])
def test_what_it_says_to_remember_is_all_that_torch_keeps_but_the_count(network, optimizer_of, changes):
    optimizer = optimizer_of(network, **changes)
    gradients(network, 0)
    step(optimizer)
    for weight, state in optimizer.memory():
        assert set(state) - {"step"} == set(optimizer.remembers(weight))
        assert {state[name].shape for name in optimizer.remembers(weight)} == {weight.shape}


def test_the_moments_forget_as_configured(network, optimizer_of):
    """Gradients 1, then 0: the first moment is 0.9 * 0.1, the second 0.95 * 0.05 with a beta2 of 0.95."""
    optimizer = optimizer_of(network, beta2=0.95)
    bias = network.ln_f.bias
    for gradient in (1.0, 0.0):
        bias.grad = torch.full_like(bias, gradient)
        step(optimizer)
    state = next(state for weight, state in optimizer.memory() if weight is bias)
    torch.testing.assert_close(state["exp_avg"], torch.full_like(bias, 0.9 * 0.1))
    torch.testing.assert_close(state["exp_avg_sq"], torch.full_like(bias, 0.95 * 0.05))


# --- rates ---


@pytest.mark.parametrize("changes", KINDS, ids=["adamw", "muon", "in backward"])
def test_a_share_of_the_peak_holds_for_every_weight(make_network, recipe_of, changes):
    """At a quarter of the peak as with a peak of a quarter."""
    first, second = make_network(), make_network()
    high = Optimizer(first, recipe_of(learning_rate=4e-3, muon_learning_rate=8e-2, **changes))
    low = Optimizer(second, recipe_of(learning_rate=1e-3, muon_learning_rate=2e-2, **changes))
    for share in (1.0, 0.25):  # the second call starts from the peak, not from the first
        high.set_rate(share)
    for network, optimizer in ((first, high), (second, low)):
        gradients(network, 0)
        step(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_forgotten_gradients_are_gone(network, optimizer_of):
    optimizer = optimizer_of(network, optimizer="muon")
    gradients(network, 0)
    optimizer.zero_grad()
    assert {weight.grad for weight in network.parameters()} == {None}


# --- while gradients come ---


@pytest.mark.parametrize("recompute", [False, True])
def test_stepping_in_backward_gives_the_same_weights_bit_for_bit(make_network, recipe_of, text, recompute):
    """No weight may change while an earlier layer's gradient still needs it; the embedding is also the head."""
    ordinary, eager = make_network(), make_network()
    optimizers = Optimizer(ordinary, recipe_of()), Optimizer(eager, recipe_of(step_in_backward=True, clip_norm=0))
    for number in range(4):
        for network in (ordinary, eager):
            network.recompute = recompute
            batch_loss(network.hidden, network.head_weight, batch_at(text, 0, number, 4), "fp32", chunk=16).backward()
        kept = [weight for weight in eager.parameters() if weight.grad is not None]
        assert list(map(id, kept)) == [id(eager.head_weight)], "no other gradient is kept"
        optimizers[1].step_one(eager.head_weight)
        assert eager.head_weight.grad is None
        step(optimizers[0])
        optimizers[0].zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(ordinary.parameters(), eager.parameters(), strict=True))
    assert not torch.equal(eager.wte.weight, make_network().wte.weight)
