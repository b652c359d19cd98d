import shutil

import pytest

from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.formats.registry import detect, writable


def test_every_golden_model_is_recognised(example):
    assert detect(example.directory).name == "safetensors"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("hf-safetensors/model.safetensors", "safetensors"),
        ("hf-safetensors/sharded", "safetensors"),
        ("hf-bin", "bin"),
        ("hf-bin/sharded", "bin"),
        ("hf-bin/pytorch_model.bin", "bin"),
        ("hf-2019-bin/gpt2-pytorch_model.bin", "bin"),
        ("hf-2019-bin", "bin"),
        ("hf-tf-h5", "h5"),
        ("hf-tf-h5/sharded", "h5"),
        ("hf-tf-h5/tf_model.h5", "h5"),
        ("gguf/small-q8_0.gguf", "gguf"),
        ("onnx/optimum_with_past", "onnx"),
        ("onnx/torch_dynamo/model.onnx", "onnx"),
        ("nanogpt", "nanogpt"),
        ("nanogpt/nobias/ckpt.pt", "nanogpt"),
        ("openai-tiny", "openai"),
        ("openai-tiny/model.ckpt", "openai"),
        ("openai-tiny/model.ckpt.index", "openai"),
        ("nshepperd/checkpoint/run1", "openai"),
        ("gpt2simple/checkpoint/run1", "openai"),
        ("gpt2simple/checkpoint/run1/model-2", "openai"),
    ],
)
def test_every_format_is_known_by_its_content(shared, place, name):
    assert detect(shared / "fixtures" / place).name == name


def test_a_file_with_another_name_is_known_by_its_content(shared, tmp_path):
    for number, (file, name) in enumerate(
        [
            ("hf-bin/pytorch_model.bin", "bin"),
            ("hf-tf-h5/tf_model.h5", "h5"),
            ("hf-2019-bin/gpt2-pytorch_model.bin", "bin"),
            ("hf-safetensors/model.safetensors", "safetensors"),
        ]
    ):
        copy = tmp_path / f"{number}.weights"
        shutil.copyfile(shared / "fixtures" / file, copy)
        assert detect(copy).name == name


@pytest.mark.parametrize("name", ["banana", "", "Safetensors"])
def test_a_format_that_cannot_be_written_is_refused_with_those_that_can(name):
    with pytest.raises(
        ConfigError, match=f"no format '{name}'; there are safetensors, nanogpt, bin, h5, openai, gguf, onnx"
    ):
        writable(name)


def test_the_recognised_format_reads(golden):
    directory = golden / "hf-v5"
    assert detect(directory).module.read(directory).config.width == 40


def test_an_unknown_directory_is_refused_with_what_it_holds(tmp_path):
    for name in ("notes.txt", "config.json"):
        (tmp_path / name).touch()
    with pytest.raises(
        FormatError, match=r"no checkpoint in a known format, holding config\.json, notes\.txt; known: "
    ):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("gpt2simple", "gpt2simple/checkpoint/run1"),
        ("gpt2simple/checkpoint", "gpt2simple/checkpoint/run1"),
        ("hf-bin/sharded/pytorch_model.bin.index.json", "hf-bin/sharded"),
    ],
)
def test_a_place_beside_a_checkpoint_tells_where_it_is(shared, asked, near):
    with pytest.raises(FormatError, match=f"no checkpoint itself, but there is one: name .*{near}( or |$)"):
        detect(shared / "fixtures" / asked)


def test_one_of_several_shards_is_told_from_a_model(shared):
    for name in (
        "hf-bin/sharded/pytorch_model-00001-of-00006.bin",
        "hf-safetensors/sharded/model-00002-of-00006.safetensors",
    ):
        place = shared / "fixtures" / name
        with pytest.raises(FormatError, match="one of several shards; name the directory that holds them all"):
            detect(place).module.read(place)


def test_an_empty_directory_is_refused_as_such(tmp_path):
    with pytest.raises(FormatError, match="no checkpoint in a known format, holding nothing; known: "):
        detect(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "nowhere"])
def test_another_file_is_refused_with_what_is_known(tmp_path, name):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        FormatError, match=r"no checkpoint in a known format; known: safetensors \(Hugging Face .*; openai \(OpenAI"
    ):
        detect(tmp_path / name)


def test_a_pickle_outside_the_directory_is_never_opened(shared, tmp_path, monkeypatch):
    # Its index leads to a neighbour's pickle, which would leave a mark where the program stands.
    monkeypatch.chdir(tmp_path)
    for case in ("shard_bin_traversal", "pickle_malicious_zip"):
        shutil.copytree(shared / "fixtures" / "bad" / case, tmp_path / case)
    with pytest.raises(FormatError):
        detect(tmp_path / "shard_bin_traversal").module.read(tmp_path / "shard_bin_traversal")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pickle_malicious_zip", "shard_bin_traversal"]
