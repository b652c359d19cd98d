import torch

from gpt2kit.config.training import TrainingConfig
from gpt2kit.train.optimizer import adamw

CONFIG = TrainingConfig(learning_rate=0.5, weight_decay=0.1, beta2=0.95)
# GPT-2's matrices by their names in the checkpoint; everything else is a bias or a gain.
MATRICES = ("wte.weight", "wpe.weight", "c_attn.weight", "c_proj.weight", "c_fc.weight")


def step_without_gradient(network, config):
    """The weights before and after: only decay can tell them apart."""
    optimizer = adamw(network, config)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return before, dict(network.named_parameters())


def test_matrices_decay_by_rate_times_decay(network):
    before, after = step_without_gradient(network, CONFIG)
    matrices = [name for name in before if name.endswith(MATRICES)]
    assert len(matrices) == 2 + 4 * network.config.layers
    for name in matrices:
        torch.testing.assert_close(after[name].detach(), before[name] * (1 - 0.5 * 0.1))


def test_biases_and_gains_do_not_decay(network):
    before, after = step_without_gradient(network, CONFIG)
    for name in before:
        if not name.endswith(MATRICES):
            torch.testing.assert_close(after[name].detach(), before[name], rtol=0, atol=0)


def test_every_parameter_is_in_one_group(network):
    groups = adamw(network, CONFIG).param_groups
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, network.parameters()))


def test_the_moments_forget_as_configured(network):
    """Gradients 1, then 0: the first moment is 0.9 * 0.1, the second 0.95 * 0.05 with a beta2 of 0.95."""
    optimizer = adamw(network, CONFIG)
    bias = network.ln_f.bias
    for gradient in (1.0, 0.0):
        bias.grad = torch.full_like(bias, gradient)
        optimizer.step()
    torch.testing.assert_close(optimizer.state[bias]["exp_avg"], torch.full_like(bias, 0.9 * 0.1))
    torch.testing.assert_close(optimizer.state[bias]["exp_avg_sq"], torch.full_like(bias, 0.95 * 0.05))
