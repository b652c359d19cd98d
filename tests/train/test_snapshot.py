import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.model.weights import to_network
from gpt2kit.train.optimizer import adamw
from gpt2kit.train.snapshot import freeze, wake_optimizer


def trained(network, steps=3):
    """An optimizer that has seen some gradients."""
    optimizer = adamw(network, TrainingConfig())
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return optimizer


@pytest.fixture
def frozen(network, tmp_path):
    """A trained network and optimizer, and the directory they were written to."""
    optimizer = trained(network)
    freeze(network, optimizer, tmp_path)
    return network, optimizer, tmp_path


def test_transformers_reads_the_frozen_weights(frozen, golden, transformers):
    network, _, directory = frozen
    (directory / "config.json").write_bytes((golden / "hf-safetensors" / "config.json").read_bytes())
    model = transformers.GPT2LMHeadModel.from_pretrained(directory).eval()
    ids_BT = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(network(ids_BT), model(ids_BT).logits, atol=1e-4, rtol=1e-4)


def test_moments_are_stored_as_torch_holds_them(frozen):
    network, optimizer, directory = frozen
    stored = load_file(directory / "optimizer.safetensors")
    for name, parameter in network.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            np.testing.assert_array_equal(stored.pop(f"{moment}.{name}"), optimizer.state[parameter][moment])
    assert not stored


def test_a_woken_optimizer_goes_on_exactly(frozen, tiny_checkpoint):
    """One more step with equal gradients: bit for bit the weights of the optimizer that never slept."""
    network, optimizer, directory = frozen
    twin = to_network(tiny_checkpoint.config, tiny_checkpoint.tensors)
    twin.load_state_dict(network.state_dict())
    woken = adamw(twin, TrainingConfig())
    wake_optimizer(twin, woken, directory, step=3)
    for model in (network, twin):
        for parameter in model.parameters():
            parameter.grad = torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
    optimizer.step()
    woken.step()
    for expected, found in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_waking_copies_so_that_the_files_stay_as_they_are(frozen):
    network, _, directory = frozen
    before = (directory / "optimizer.safetensors").read_bytes()
    woken = adamw(network, TrainingConfig())
    wake_optimizer(network, woken, directory, step=3)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    woken.step()
    assert (directory / "optimizer.safetensors").read_bytes() == before


def test_a_missing_moment_is_refused_by_name(frozen):
    network, _, directory = frozen
    stored = load_file(directory / "optimizer.safetensors")
    del stored["exp_avg.ln_f.bias"]
    save_file(stored, directory / "optimizer.safetensors")
    with pytest.raises(WeightMismatch, match=r"optimizer\.safetensors: exp_avg\.ln_f\.bias is missing"):
        wake_optimizer(network, adamw(network, TrainingConfig()), directory, step=3)


def test_a_moment_of_another_shape_is_refused(frozen):
    network, _, directory = frozen
    stored = load_file(directory / "optimizer.safetensors")
    stored["exp_avg.ln_f.bias"] = np.zeros(41, np.float32)
    save_file(stored, directory / "optimizer.safetensors")
    with pytest.raises(WeightMismatch, match=r"exp_avg\.ln_f\.bias is \(41,\); the model asks for \(40,\)"):
        wake_optimizer(network, adamw(network, TrainingConfig()), directory, step=3)


def test_a_torn_optimizer_file_is_refused(frozen):
    network, _, directory = frozen
    content = (directory / "optimizer.safetensors").read_bytes()
    (directory / "optimizer.safetensors").write_bytes(content[:-7])
    with pytest.raises(FormatError, match="7 bytes"):
        wake_optimizer(network, adamw(network, TrainingConfig()), directory, step=3)
