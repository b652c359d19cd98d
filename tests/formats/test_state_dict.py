"""Names that trainers and other heads leave in a file, written by the libraries that leave them."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.formats import huggingface, torch_bin

WIDTH = 40


@pytest.fixture
def stored(golden):
    """The state dict of a GPT2LMHeadModel, less the head."""
    return load_file(golden / "hf-safetensors" / "model.safetensors")


@pytest.fixture
def read(golden, tmp_path):
    """What our reader makes of such tensors in a directory."""

    def go(tensors, **settings):
        config = json.loads((golden / "hf-safetensors" / "config.json").read_text("utf-8"))
        (tmp_path / "config.json").write_text(json.dumps(config | settings), "utf-8")
        save_file(tensors, tmp_path / "model.safetensors")
        return huggingface.read(tmp_path)

    return go


def bits(checkpoint):
    return {name: tensor.read().tobytes() for name, tensor in checkpoint.tensors.items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "_orig_mod.module.", "gpt2.", "base_model.model."]
)
@pytest.mark.parametrize("base", [False, True], ids=["with head", "base model"])
def test_what_trainers_put_before_the_names_is_taken_away(read, stored, tiny_checkpoint, prefix, base):
    names = {name.removeprefix("transformer.") if base else name: values for name, values in stored.items()}
    named = {f"{prefix}{name}": values for name, values in names.items()}
    if not base:
        named[f"{prefix}lm_head.weight"] = stored["transformer.wte.weight"]
    assert bits(read(named)) == bits(tiny_checkpoint)


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "module", "net"])
def test_weights_are_found_beside_what_trainers_keep(golden, tmp_path, stored, tiny_checkpoint, name):
    tensors = {key: torch.from_numpy(values) for key, values in stored.items()}
    shutil.copy(golden / "hf-safetensors" / "config.json", tmp_path)
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({name: tensors, "optimizer": optimizer, "epoch": 3}, tmp_path / "last.ckpt")
    assert bits(torch_bin.read(tmp_path / "last.ckpt")) == bits(tiny_checkpoint)


@pytest.mark.parametrize("name", ["multiple_choice_head.summary.weight", "v_head.summary.bias"])
def test_a_second_head_is_left_out_and_named(read, stored, tiny_checkpoint, name):
    with pytest.warns(UserWarning, match=f"left out, for only the language model is read: {name}"):
        assert bits(read({**stored, name: np.zeros((1, WIDTH), np.float32)})) == bits(tiny_checkpoint)


@pytest.mark.parametrize("name", ["score.weight", "classifier.bias", "qa_outputs.weight"])
def test_the_head_of_a_classifier_is_refused_by_name(read, stored, name):
    with pytest.raises(WeightMismatch, match=f"{name} is the head of a classifier; expected a language model"):
        read({**stored, name: np.zeros((2, WIDTH), np.float32)})


def test_a_head_that_is_the_embedding_is_not_counted_twice(read, stored, tiny_checkpoint):
    with warnings.catch_warnings(action="error"):
        found = read({**stored, "lm_head.weight": stored["transformer.wte.weight"].copy()})
    assert bits(found) == bits(tiny_checkpoint)


@pytest.mark.parametrize("rows", [slice(None), slice(1, 2), slice(319, 320)], ids=["all", "second", "last"])
def test_a_head_of_its_own_counts_whatever_the_configuration_says(read, stored, rows):
    head = stored["transformer.wte.weight"].copy()
    head[rows] += np.float32(0.01)
    with pytest.warns(UserWarning, match="said to be the token embedding, but lm_head.weight holds other values"):
        found = read({**stored, "lm_head.weight": head}, tie_word_embeddings=True)
    assert not found.config.tied_head
    np.testing.assert_array_equal(found.tensors["lm_head.weight"].read(), head)


def test_two_tensors_of_one_name_are_refused(read, stored):
    with pytest.raises(WeightMismatch, match=r"is a second wte\.weight; which of them counts is not told"):
        read({**stored, "wte.weight": np.zeros_like(stored["transformer.wte.weight"])})


def test_tensors_of_another_model_are_told_by_name(read):
    with pytest.raises(WeightMismatch, match=r"not the tensors of a GPT-2; it holds encoder\.weight"):
        read({"encoder.weight": np.zeros(3, np.float32), **{f"other.{n}": np.zeros(1, np.float32) for n in range(9)}})


def test_whole_numbers_are_no_weights(read, stored):
    stored["transformer.h.1.mlp.c_fc.weight"] = stored["transformer.h.1.mlp.c_fc.weight"].astype(np.int8)
    with pytest.raises(WeightMismatch, match=r"h\.1\.mlp\.c_fc\.weight is int8; expected float64, float32"):
        read(stored)


def test_quantised_models_are_refused_by_their_configuration(read, stored):
    with pytest.raises(FormatError, match="the weights are quantised; save the model in full precision first"):
        read(stored, quantization_config={"load_in_8bit": True})


@pytest.mark.slow
def test_what_tensorflow_saved_as_safetensors_is_read(golden, tmp_path):
    """transformers 4 saves TFGPT2LMHeadModel so: h5py's names and shapes, less the root."""
    from gpt2kit.formats.h5_file import open_tensors

    datasets = open_tensors(golden / "hf-tf-h5" / "tf_model.h5")
    tensors = {name.partition("/")[2].partition("/")[2]: tensor.read() for name, tensor in datasets.items()}
    assert "transformer/h_._0/attn/c_attn/bias:0" in tensors
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "tf"})
    shutil.copy(golden / "hf-tf-h5" / "config.json", tmp_path)
    from gpt2kit.formats import keras_h5

    assert bits(huggingface.read(tmp_path)) == bits(keras_h5.read(golden / "hf-tf-h5"))
