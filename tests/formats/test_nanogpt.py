"""nanoGPT's ckpt.pt: what its train.py wrote (logits in test_fixtures), and what its readers make of ours."""

import contextlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt2kit.errors import ConfigError, FormatError, WeightMismatch
from gpt2kit.formats import nanogpt
from gpt2kit.formats.torch_file import write_object
from gpt2kit.jobs.compare import compare
from gpt2kit.jobs.convert import convert
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint


@pytest.fixture(scope="module")
def theirs(shared):
    return shared / "fixtures" / "nanogpt"


@pytest.fixture
def model(golden):
    """A GPT-2 of 320 tokens with its tokenizer."""
    return open_checkpoint(golden / "hf-safetensors")


@pytest.fixture
def as_theirs(model):
    """The same with nanoGPT's activation."""
    return replace(model, config=replace(model.config, activation="gelu_exact"))


def test_a_prefix_of_torch_compile_changes_nothing(theirs):
    plain, compiled = open_checkpoint(theirs), open_checkpoint(theirs / "compiled_prefix" / "ckpt.pt")
    assert compare(replace(plain, tokenizer_files={}), compiled).nothing
    assert (plain.config.activation, plain.step) == ("gelu_exact", 3)


def test_biases_that_are_not_there_are_zero(theirs):
    checkpoint = open_checkpoint(theirs / "nobias")
    biases = {name: tensor for name, tensor in checkpoint.tensors.items() if name.endswith(".bias")}
    assert len(biases) == 3 * 6 + 1
    assert not any(tensor.read().any() for tensor in biases.values())
    assert biases["h.0.attn.c_attn.bias"].shape == (72,)


def test_what_is_written_is_read_again(as_theirs, tmp_path):
    conversion = convert(replace(as_theirs, step=7), tmp_path / "out", to="nanogpt")
    assert conversion.difference.nothing
    assert conversion.checkpoint.step == 7
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"ckpt.pt", *as_theirs.tokenizer_files}


def test_torch_finds_what_nanogpt_loads(as_theirs, tmp_path):
    nanogpt.write(as_theirs, tmp_path, silent)
    found = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    shape = {"n_layer": 3, "n_head": 4, "n_embd": 40, "block_size": 56, "vocab_size": 320}
    assert found["model_args"] == {**shape, "bias": True, "dropout": 0.0}
    assert (found["iter_num"], found["best_val_loss"], "dataset" in found["config"]) == (0, 1e9, False)
    state = found["model"]
    assert state["lm_head.weight"].data_ptr() == state["transformer.wte.weight"].data_ptr()
    stored = as_theirs.tensors["h.1.attn.c_attn.weight"].read()
    np.testing.assert_array_equal(state["transformer.h.1.attn.c_attn.weight"].numpy(), stored.T)


def test_torchs_adamw_goes_on_with_the_optimizer(as_theirs, tmp_path):
    nanogpt.write(as_theirs, tmp_path, silent)
    found = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    weights = [weight.requires_grad_() for name, weight in found["model"].items() if name != "lm_head.weight"]
    matrices, vectors = ([weight for weight in weights if (weight.dim() > 1) is wanted] for wanted in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": vectors}])
    optimizer.load_state_dict(found["optimizer"])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0]
    before = torch.stack([weight.detach().sum() for weight in weights])
    sum(weight.sum() for weight in weights).backward()
    optimizer.step()
    assert (torch.stack([weight.detach().sum() for weight in weights]) < before).all()


def test_the_activation_of_a_gpt2_is_remembered_and_told_of(model, tmp_path):
    with pytest.warns(UserWarning, match="nanoGPT computes gelu_exact, this model gelu_tanh"):
        conversion = convert(model, tmp_path / "out", to="nanogpt")
    assert conversion.difference.nothing


def test_from_format_to_format_and_back_every_bit_is_the_same(shared, tmp_path):
    """TensorFlow 1, GGUF, nanoGPT, safetensors, TensorFlow 1."""
    source = open_checkpoint(shared / "fixtures" / "openai-tiny")
    place = source
    for number, format in enumerate(("gguf", "nanogpt", "safetensors", "openai")):
        with pytest.warns(UserWarning, match="gelu") if format == "nanogpt" else contextlib.nullcontext():
            place = convert(place, tmp_path / str(number), to=format).checkpoint
    assert compare(place, source).nothing


@pytest.mark.parametrize(
    "changes",
    [{"norm_epsilon": 1e-6}, {"scale_attention": False}, {"scale_attention_by_layer": True}, {"inner_width": 64}],
)
def test_what_nanogpt_would_compute_otherwise_is_not_written(as_theirs, tmp_path, changes):
    with pytest.raises(ConfigError, match="would be another model there"):
        nanogpt.write(replace(as_theirs, config=replace(as_theirs.config, **changes)), tmp_path, silent)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"n_layer": "3"}, FormatError, "model_args: n_layer is '3'; expected a whole number"),
        ({"n_head": 7}, FormatError, "model_args: .*heads"),
        ({"n_layer": 4}, WeightMismatch, "tensor h.3.* is missing"),
        ({"block_size": 5}, WeightMismatch, "wpe.weight is"),
    ],
)
def test_arguments_that_lie_are_refused(as_theirs, tmp_path, changes, error, told):
    arguments = {"n_layer": 3, "n_head": 4, "n_embd": 40, "block_size": 56, "vocab_size": 320, "bias": True}
    nanogpt.write(as_theirs, tmp_path, silent)
    found = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    torch.save({**found, "model_args": arguments | changes}, tmp_path / "ckpt.pt")
    with pytest.raises(error, match=told):
        open_checkpoint(tmp_path)


def test_a_ckpt_of_something_else_is_refused(tmp_path):
    write_object({"weights": 1}, tmp_path / "ckpt.pt")
    with pytest.raises(FormatError, match="not a checkpoint of nanoGPT; expected a dict with model and model_args"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("case", ["nanogpt_malicious_ckpt", "nanogpt_malicious_meta"])
def test_code_in_pickles_is_not_run(shared, tmp_path, case, monkeypatch):
    shutil.copytree(shared / "fixtures" / "bad" / case, tmp_path / case)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError) if case.endswith("ckpt") else pytest.warns(UserWarning, match="meta.pkl"):
        open_checkpoint(tmp_path / case)
    assert not list(tmp_path.rglob("*PWNED*"))
