"""Directories that are wrong in one way each; fixtures/bad/cases.json says what they must get."""

import json
import shutil

import numpy as np
import pytest

from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.formats import keras_h5

pytestmark = pytest.mark.slow  # a process for every file

h5py = pytest.importorskip("h5py")


@pytest.fixture
def directory(golden, tmp_path):
    """A model directory that may be damaged."""
    for name in ("config.json", "tf_model.h5"):
        shutil.copy(golden / "hf-tf-h5" / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def shards(golden, tmp_path):
    shutil.copytree(golden / "hf-tf-h5" / "sharded", tmp_path, dirs_exist_ok=True)
    return tmp_path


def refused(directory, error, match):
    with pytest.raises(error, match=match) as caught:
        keras_h5.read(directory)
    assert str(directory) in str(caught.value)


def test_wrong_shapes_name_the_tensor(shared):
    refused(
        shared / "fixtures" / "bad" / "h5_wrong_shapes", WeightMismatch, r"h\.1\.attn\.c_attn\.weight is \(40, 117\)"
    )


def test_a_missing_tensor_is_named(shared):
    refused(shared / "fixtures" / "bad" / "h5_missing_tensor", WeightMismatch, r"tensor ln_f\.weight is missing")


def test_garbage_is_not_hdf5(shared):
    refused(shared / "fixtures" / "bad" / "h5_garbage", FormatError, r"tf_model\.h5: the HDF5 library cannot read it")


def test_a_link_into_another_file_is_not_followed(shared):
    refused(
        shared / "fixtures" / "bad" / "h5_external_link", FormatError, r"wte/embeddings:0' is a link into another file"
    )


def test_a_directory_without_weights_says_what_it_expected(tmp_path):
    refused(tmp_path, FormatError, r"holds no weights; expected tf_model\.h5 or tf_model\.h5\.index\.json")


def test_a_name_that_no_gpt2_has_is_refused(directory):
    with h5py.File(directory / "tf_model.h5", "a") as file:
        file["transformer/score/kernel:0"] = np.zeros(2, "f4")
    refused(directory, FormatError, r"'transformer/score/kernel:0' is no tensor of a GPT-2 as Keras names them")


def test_a_layer_too_many_is_refused(directory):
    with h5py.File(directory / "tf_model.h5", "a") as file:
        file["transformer/h_._3/ln_1/gamma:0"] = np.zeros(40, "f4")
    refused(directory, WeightMismatch, r"1 tensors that the configuration does not know, such as h\.3\.ln_1\.weight")


def test_a_tensor_that_is_there_twice_is_refused(directory):
    with h5py.File(directory / "tf_model.h5", "a") as file:
        file["transformer/wte/weight:0"] = np.zeros((320, 40), "f4")
    refused(directory, FormatError, r"wte/embeddings:0' is a second wte\.weight")


def test_a_configuration_of_another_model_is_refused(directory):
    config = json.loads((directory / "config.json").read_text("utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"n_embd": 80}), "utf-8")
    refused(directory, WeightMismatch, r"wte\.weight is \(320, 40\), but the configuration asks for \(320, 80\)")


def test_a_missing_configuration_is_asked_for_where_the_heads_cannot_be_guessed(directory):
    (directory / "config.json").unlink()
    refused(directory, FormatError, r"config\.json is missing")


def test_a_missing_shard_is_refused(shards):
    (shards / "tf_model-00003-of-00006.h5").unlink()
    refused(shards, FormatError, r"tf_model-00003-of-00006\.h5")


def test_a_shard_that_is_not_in_the_index_leaves_tensors_missing(shards):
    index = shards / "tf_model.h5.index.json"
    stored = json.loads(index.read_text("utf-8"))
    stored["weight_map"] = {k: v for k, v in stored["weight_map"].items() if v != "tf_model-00002-of-00006.h5"}
    index.write_text(json.dumps(stored), "utf-8")
    refused(shards, WeightMismatch, r"tensor wpe\.weight is missing")


def test_a_shard_elsewhere_is_not_read(shards, golden):
    index = shards / "tf_model.h5.index.json"
    index.write_text(
        index.read_text("utf-8").replace("tf_model-00001", f"{golden}/hf-tf-h5/sharded/tf_model-00001"), "utf-8"
    )
    refused(shards, FormatError, r"expected a file in the same directory")


def test_two_shards_with_the_same_tensor_are_refused(shards):
    shutil.copy(shards / "tf_model-00001-of-00006.h5", shards / "tf_model-00002-of-00006.h5")
    refused(shards, FormatError, r"holds wte\.weight, which another shard holds as well")


def test_one_shard_alone_is_told_from_a_model(shards):
    with pytest.raises(FormatError, match="one of several shards; name the directory that holds them all"):
        keras_h5.read(shards / "tf_model-00001-of-00006.h5")
