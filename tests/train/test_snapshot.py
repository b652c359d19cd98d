import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.train.optimizer import Optimizer
from gpt2kit.train.snapshot import freeze, wake_optimizer

KINDS = [{}, {"optimizer": "muon"}, {"step_in_backward": True, "clip_norm": 0}]
INNER = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def step(network, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    for part in optimizer.parts:
        part.step()


@pytest.fixture(params=KINDS, ids=["adamw", "muon", "in backward"])
def recipe(request, recipe_of):
    return recipe_of(**request.param)


@pytest.fixture
def frozen(network, recipe, tmp_path):
    """A network and an optimizer after three steps, and the directory they were written to."""
    optimizer = Optimizer(network, recipe)
    for number in range(3):
        step(network, optimizer, number)
    freeze(network, optimizer, tmp_path)
    return network, optimizer, tmp_path


@pytest.fixture
def frozen_adamw(network, recipe_of, tmp_path):
    optimizer = Optimizer(network, recipe_of())
    step(network, optimizer, 0)
    freeze(network, optimizer, tmp_path)
    return network, optimizer, tmp_path


@pytest.mark.slow
def test_transformers_reads_the_frozen_weights(frozen, golden, transformers):
    network, _, directory = frozen
    (directory / "config.json").write_bytes((golden / "hf-safetensors" / "config.json").read_bytes())
    model = transformers.GPT2LMHeadModel.from_pretrained(directory).eval()
    ids_BT = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(network(ids_BT), model(ids_BT).logits, atol=1e-4, rtol=1e-4)


def test_moments_are_stored_as_torch_holds_them(frozen, recipe):
    network, optimizer, directory = frozen
    stored, held = load_file(directory / "optimizer.safetensors"), dict(optimizer.memory())
    for name, parameter in network.named_parameters():
        with_muon = recipe.optimizer == "muon" and name.endswith(INNER)
        for moment in ("momentum_buffer",) if with_muon else ("exp_avg", "exp_avg_sq"):
            np.testing.assert_array_equal(stored.pop(f"{moment}.{name}"), held[parameter][moment])
    assert not stored


def test_a_woken_optimizer_goes_on_exactly(frozen, recipe, make_network):
    """Two more steps with equal gradients: bit for bit the weights of the optimizer that never slept."""
    network, optimizer, directory = frozen
    twin = make_network()
    twin.load_state_dict(network.state_dict())
    woken = Optimizer(twin, recipe)
    wake_optimizer(twin, woken, directory, updates=3)
    for number in (3, 4):
        step(network, optimizer, number)
        step(twin, woken, number)
    for expected, found in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_how_many_updates_there_were_matters(frozen_adamw, recipe_of, make_network):
    """Else the test above would not see a count that was forgotten."""
    network, optimizer, directory = frozen_adamw
    twin = make_network()
    twin.load_state_dict(network.state_dict())
    woken = Optimizer(twin, recipe_of())
    wake_optimizer(twin, woken, directory, updates=2)
    step(network, optimizer, 1)
    step(twin, woken, 1)
    assert not torch.equal(network.wte.weight, twin.wte.weight)


def test_an_optimizer_that_never_stepped_sleeps_and_wakes(network, recipe, make_network, tmp_path):
    """As when every step so far was skipped."""
    freeze(network, Optimizer(network, recipe), tmp_path)
    twin = make_network()
    first, second = Optimizer(network, recipe), Optimizer(twin, recipe)
    wake_optimizer(twin, second, tmp_path, updates=0)
    step(network, first, 0)
    step(twin, second, 0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_waking_copies_so_that_the_files_stay_as_they_are(frozen, recipe):
    network, _, directory = frozen
    before = (directory / "optimizer.safetensors").read_bytes()
    woken = Optimizer(network, recipe)
    wake_optimizer(network, woken, directory, updates=3)
    step(network, woken, 9)
    assert (directory / "optimizer.safetensors").read_bytes() == before


def test_a_missing_moment_is_refused_by_name(frozen_adamw, recipe_of):
    network, _, directory = frozen_adamw
    stored = load_file(directory / "optimizer.safetensors")
    del stored["exp_avg.ln_f.bias"]
    save_file(stored, directory / "optimizer.safetensors")
    with pytest.raises(
        WeightMismatch, match=r"optimizer\.safetensors: exp_avg\.ln_f\.bias is missing; expected \(40,\); .*--model "
    ):
        wake_optimizer(network, Optimizer(network, recipe_of()), directory, updates=1)


def test_a_moment_of_another_shape_is_refused(frozen_adamw, recipe_of):
    network, _, directory = frozen_adamw
    stored = load_file(directory / "optimizer.safetensors")
    stored["exp_avg.ln_f.bias"] = np.zeros(41, np.float32)
    save_file(stored, directory / "optimizer.safetensors")
    with pytest.raises(WeightMismatch, match=r"exp_avg\.ln_f\.bias is \(41,\); expected \(40,\)"):
        wake_optimizer(network, Optimizer(network, recipe_of()), directory, updates=1)


def test_a_torn_optimizer_file_is_refused(frozen_adamw, recipe_of):
    network, _, directory = frozen_adamw
    content = (directory / "optimizer.safetensors").read_bytes()
    (directory / "optimizer.safetensors").write_bytes(content[:-7])
    with pytest.raises(FormatError, match="7 bytes"):
        wake_optimizer(network, Optimizer(network, recipe_of()), directory, updates=1)
