"""Damaged safetensors files, indexes of shards, and what lies beside them: config.json and vocabularies."""

import shutil
import struct

import pytest

from gpt2kit.formats import huggingface
from gpt2kit.tokenizer.open import open_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture
def directory(tmp_path, golden):
    """Small enough that a mutation costs little; the weights are whole, and so are the shards."""
    place = tmp_path / "model"
    shutil.copytree(golden / "hf-safetensors", place, ignore=shutil.ignore_patterns("*.npz", "sharded", "base*"))
    for file in (golden / "hf-safetensors" / "sharded").glob("model-*"):
        shutil.copy(file, place)
    return place


@pytest.fixture
def read_all(directory):
    def read(place=directory):
        checkpoint = huggingface.read(place)
        for tensor in checkpoint.tensors.values():
            assert tensor.read_float32().shape == tensor.shape
        return checkpoint

    return read


def test_a_damaged_file(directory, read_all, survives):
    file = directory / "model.safetensors"
    original = file.read_bytes()

    def open_and_read(content):
        file.write_bytes(content)
        read_all()

    outcomes = survives(original, open_and_read)
    assert outcomes["FormatError"] > 0
    assert outcomes["accepted"] > 0


def test_a_damaged_header_that_has_the_right_length(directory, read_all, survives):
    """The length in front is mended: what is behind it is reached."""
    file = directory / "model.safetensors"
    original = file.read_bytes()
    (length,) = struct.unpack("<Q", original[:8])

    def open_and_read(header):
        file.write_bytes(struct.pack("<Q", len(header)) + header + original[8 + length :])
        read_all()

    assert survives(original[8 : 8 + length], open_and_read, seed=10**6)["FormatError"] > 0


def test_a_damaged_index_of_shards(directory, read_all, survives, golden):
    (directory / "model.safetensors").unlink()
    index = directory / "model.safetensors.index.json"
    original = (golden / "hf-safetensors" / "sharded" / index.name).read_bytes()

    def open_and_read(content):
        index.write_bytes(content)
        read_all()

    assert survives(original, open_and_read, seed=2 * 10**6)["FormatError"] > 0


def test_a_damaged_configuration(directory, read_all, survives):
    file = directory / "config.json"
    original = file.read_bytes()

    def open_and_read(content):
        file.write_bytes(content)
        read_all()

    assert survives(original, open_and_read, seed=3 * 10**6)["FormatError"] > 0


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer.json"])
def test_a_damaged_vocabulary(golden, survives, name):
    home = golden / "hf-safetensors"
    names = ["tokenizer.json"] if name == "tokenizer.json" else ["vocab.json", "merges.txt"]
    files = {each: (home / each).read_bytes() for each in names}

    def open_and_read(content):
        tokenizer = open_tokenizer(files | {name: content}, "here")
        assert tokenizer.decode(tokenizer.encode("It's a test, 你好 🎈\n")) == "It's a test, 你好 🎈\n"

    assert survives(files[name], open_and_read, seed=4 * 10**6)["FormatError"] > 0
