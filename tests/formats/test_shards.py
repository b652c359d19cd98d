import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError
from gpt2kit.formats.safetensors_file import open_tensors, write_tensors
from gpt2kit.formats.shards import open_shards, read_shard_index, write_shards
from gpt2kit.progress import silent


def tensors_of(**sizes):
    """Tensors of so many float32 each, filled with their number."""
    values = {name: np.full(size, number, np.float32) for number, (name, size) in enumerate(sizes.items(), 1)}
    return {name: LazyTensor(name, "float32", v.shape, lambda v=v: v) for name, v in values.items()}


def write(tmp_path, tensors, shard_bytes):
    write_shards(tensors, tmp_path / "model.safetensors", write_tensors, silent, shard_bytes)
    return sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("shard_bytes", [None, 24, 100])
def test_what_fits_is_one_file_without_an_index(tmp_path, shard_bytes):
    assert write(tmp_path, tensors_of(a=2, b=4), shard_bytes) == ["model.safetensors"]


def test_no_file_holds_more_than_asked_for(tmp_path):
    assert write(tmp_path, tensors_of(a=2, b=2, c=1, d=3), 16) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert set(load_file(tmp_path / "model-00001-of-00002.safetensors")) == {"a", "b"}


def test_a_tensor_larger_than_a_shard_has_one_alone(tmp_path):
    write(tmp_path, tensors_of(a=1, b=9, c=1), 8)
    assert set(load_file(tmp_path / "model-00002-of-00003.safetensors")) == {"b"}


def test_a_tensor_under_two_names_counts_once(tmp_path):
    tensors = tensors_of(a=2, b=2)
    both = {"a": tensors["a"], "again": tensors["a"], "b": tensors["b"]}
    write(tmp_path, both, 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_a_tensor_under_two_names_is_stored_once_however_small_the_shards(tmp_path):
    tensors = tensors_of(a=9, b=2)
    write(tmp_path, {"a": tensors["a"], "again": tensors["a"], "b": tensors["b"]}, 8)
    assert set(load_file(tmp_path / "model-00001-of-00002.safetensors")) == {"a", "again"}


def test_the_index_tells_where_each_is_and_how_large_all_are(tmp_path):
    write(tmp_path, tensors_of(a=2, b=2, c=1), 16)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text("utf-8"))
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert index == {"metadata": {"total_size": 20}, "weight_map": {"a": first, "b": first, "c": second}}


def test_shards_are_read_as_one(tmp_path):
    write(tmp_path, tensors_of(a=2, b=2, c=1), 8)
    found = open_shards(tmp_path / "model.safetensors.index.json", open_tensors)
    assert {name: tensor.read().tolist() for name, tensor in found.items()} == {"a": [1, 1], "b": [2, 2], "c": [3]}


@pytest.mark.parametrize(
    "shard", ["../other.safetensors", "/etc/passwd", "sub", "sub/x.safetensors", "absent.safetensors", ""]
)
def test_a_shard_elsewhere_is_not_followed(tmp_path, shard):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.safetensors").touch()
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}), "utf-8")
    with pytest.raises(FormatError, match="expected a file in the same directory"):
        read_shard_index(index)


@pytest.mark.parametrize("placed", [None, [], {"a": 1}, {"a": None}])
def test_a_map_of_another_kind_is_refused(tmp_path, placed):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}), "utf-8")
    with pytest.raises(FormatError, match="expected a weight_map from tensor names to file names"):
        read_shard_index(index)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path):
    write_tensors(tensors_of(a=1), tmp_path / "one.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}), "utf-8")
    with pytest.raises(FormatError, match=r"1 tensors are not in one\.safetensors, such as b"):
        open_shards(index, open_tensors)
