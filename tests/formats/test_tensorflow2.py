"""TensorFlow 2's checkpoints of TFGPT2LMHeadModel, kept in every way: what it computed with each, what is refused."""

import os
import shutil

import numpy as np
import pytest

from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError, FormatError, ModelNotFound, TruncatedFile, WeightMismatch
from gpt2kit.formats import tensorflow2
from gpt2kit.formats.registry import detect
from gpt2kit.formats.tensor_bundle import open_tensors, read_string
from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.jobs.compare import compare
from gpt2kit.jobs.convert import convert
from gpt2kit.resolve import open_checkpoint

TINY = ModelConfig(vocab_size=100, window=24, width=16, layers=2, heads=2, inner_width=64)
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
WAYS = {  # place: the directory whose expected.npz tells what it computes
    "checkpoint": "checkpoint",
    "checkpoint/ckpt-1": "checkpoint",
    "checkpoint/ckpt-1.index": "checkpoint",
    "checkpoint/ckpt-1.data-00000-of-00001": "checkpoint",
    "checkpoint/checkpoint": "checkpoint",
    "weights": "weights",
    "weights/weights": "weights",
    "pretrained/saved_model/1": "pretrained",
    "plain": "plain",
    "plain/variables": "plain",
    "plain/variables/variables.index": "plain",
    "trained": "trained",
    "keras": "keras",
    "earlier": "earlier",
    "../tf2-2022/checkpoint": "../tf2-2022/checkpoint",
    "../tf2-2022/keras": "../tf2-2022/keras",
}


@pytest.fixture(scope="module")
def tf2(golden):
    return golden / "tf2"


@pytest.fixture
def directory(tf2, tmp_path):
    """One that may be changed."""
    return shutil.copytree(tf2 / "checkpoint", tmp_path / "model")


@pytest.mark.parametrize("place", WAYS)
def test_it_computes_what_tensorflow_did(tf2, place):
    assert detect(tf2 / place).name == "tf2"
    checkpoint, expected = open_checkpoint(tf2 / place), np.load(tf2 / WAYS[place] / "expected.npz")
    assert checkpoint.origin == str(tf2 / place)
    assert checkpoint.config == TINY
    engine = ReferenceEngine(checkpoint, 2)
    for number in range(3):
        ids_BT, logits_BTV = expected[f"tokens_{number}"], expected[f"logits_{number}"]
        found = engine.step([Row(slot, ids, "all") for slot, ids in enumerate(ids_BT.tolist())])
        np.testing.assert_allclose(found, logits_BTV.reshape(found.shape), atol=1e-4, rtol=0)
        for slot in range(2):
            engine.truncate(slot, 0)


@pytest.mark.parametrize("place", ["weights", "pretrained/saved_model/1", "plain"])
def test_every_way_keeps_the_same_bits(tf2, place):
    assert compare(open_checkpoint(tf2 / place), open_checkpoint(tf2 / "checkpoint")).nothing


def test_what_optimizers_keep_is_left_out(tf2):
    assert len(open_tensors(tf2 / "earlier" / "ckpt-1")) > 140
    assert len(open_checkpoint(tf2 / "earlier").tensors) == 2 + 2 * 12 + 2


def test_a_saved_model_may_be_named_by_its_graph(tf2, tmp_path):
    shutil.copytree(tf2 / "plain", tmp_path / "plain")
    (tmp_path / "plain" / "saved_model.pb").touch()
    assert compare(open_checkpoint(tmp_path / "plain" / "saved_model.pb"), open_checkpoint(tf2 / "plain")).nothing


def test_an_earlier_step_is_asked_for(tf2):
    newest, earlier = open_checkpoint(tf2 / "trained"), open_checkpoint(f"{tf2 / 'trained'}@7")
    assert (newest.step, earlier.step) == (12, 7)
    assert not compare(newest, earlier).nothing
    assert compare(earlier, open_checkpoint(tf2 / "trained" / "ckpt-7")).nothing
    with pytest.raises(ModelNotFound, match="no checkpoint of step 8; there are 7, 12"):
        open_checkpoint(tf2 / "trained", step=8)


def test_it_becomes_any_other_format_but_its_own(tf2, tmp_path):
    assert convert(tf2 / "keras", tmp_path / "out").difference.nothing
    with pytest.raises(ConfigError, match="the format tf2 is only read; written are safetensors, "):
        convert(tf2 / "keras", tmp_path / "again", to="tf2")


def test_without_a_configuration_the_heads_cannot_be_guessed(directory):
    (directory / "config.json").unlink()
    with pytest.raises(FormatError, match=r"config\.json is missing, and the number of heads cannot be guessed"):
        open_checkpoint(directory)


def test_another_configuration_is_told_from_its_own(directory):
    text = (directory / "config.json").read_text("utf-8")
    (directory / "config.json").write_text(text.replace('"n_layer": 2', '"n_layer": 3'), "utf-8")
    with pytest.raises(WeightMismatch, match=r"tensor h\.2\.ln_1\.weight is missing"):
        open_checkpoint(directory)


def test_objects_of_something_else_are_refused(shared):
    with pytest.raises(WeightMismatch, match=r"ckpt-1\.index: holds 0 GPT-2s; expected one\. At its root are "):
        open_checkpoint(shared / "fixtures" / "tensorbundle" / "tf2_object")


def test_a_cut_file_is_refused(directory):
    os.truncate(directory / "ckpt-1.data-00000-of-00001", 39_000)
    with pytest.raises(TruncatedFile, match="the file ends"):
        open_checkpoint(directory)


def test_one_wrong_bit_is_found(directory):
    data = directory / "ckpt-1.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[content.index(b"transformer")] ^= 1
    data.write_bytes(content)
    with pytest.raises(FormatError, match=f"{OBJECTS}: its length or its checksum is wrong"):
        open_checkpoint(directory)


def test_a_string_is_read_as_tensorflow_wrote_it(shared):
    bundle = shared / "fixtures" / "tensorbundle" / "tf2_object" / "ckpt-1"
    assert b"VARIABLE_VALUE" in read_string(bundle, OBJECTS)
    with pytest.raises(FormatError, match=r"save_counter.*, or not one string"):
        read_string(bundle, "save_counter/.ATTRIBUTES/VARIABLE_VALUE")
    with pytest.raises(FormatError, match="nothing is missing"):
        read_string(bundle, "nothing")


@pytest.mark.parametrize("place", ["openai-tiny", "hf-tf-h5", "tf2/pretrained", "tf2/plain/config.json", "nowhere"])
def test_other_places_are_not_taken_for_it(golden, place):
    assert not tensorflow2.sniff(golden / place)
