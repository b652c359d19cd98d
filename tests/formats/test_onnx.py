"""ONNX models: what exporters wrote is read, and onnxruntime computes with ours what the model's makers did."""

import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gpt2kit.errors import MissingExtra
from gpt2kit.formats import onnx_file, onnx_model
from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.jobs.compare import compare
from gpt2kit.jobs.convert import convert
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def made(shared):
    """The folder of files that exporters made of one model."""
    return shared / "fixtures" / "onnx"


@pytest.fixture(scope="module")
def source(made):
    """That model."""
    return open_checkpoint(made / "source_hf")


@pytest.fixture(scope="module")
def ours(source, tmp_path_factory):
    """A directory with that model as we write it."""
    directory = tmp_path_factory.mktemp("onnx")
    onnx_model.write(source, directory, silent)
    return directory


class Running:
    """A model in onnxruntime."""

    def __init__(self, directory):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(directory / "model.onnx", options, ["CPUExecutionProvider"])
        shapes = {each.name: each.shape for each in self.session.get_inputs()}
        self.past = {name: shape for name, shape in shapes.items() if name.startswith("past_key_values")}

    def __call__(self, ids_BT, past=None, mask_BS=None, positions_BT=None):
        """The logits, and all keys and values."""
        ids_BT = np.asarray(ids_BT, np.int64)
        if past is None:
            past = [np.empty((len(ids_BT), heads, 0, width), np.float32) for _, heads, _, width in self.past.values()]
        length = past[0].shape[2]
        if mask_BS is None:
            mask_BS = np.ones((len(ids_BT), length + ids_BT.shape[1]), np.int64)
        if positions_BT is None:
            positions_BT = np.broadcast_to(np.arange(length, length + ids_BT.shape[1]), ids_BT.shape)
        fed = {"input_ids": ids_BT, "attention_mask": mask_BS, "position_ids": positions_BT}
        logits_BTV, *presents = self.session.run(None, fed | dict(zip(self.past, past, strict=True)))
        return logits_BTV, presents

    def in_parts(self, ids_BT, size):
        """The logits of all positions, computed so many at a time."""
        found, past = [], None
        for begin in range(0, ids_BT.shape[1], size):
            logits_BTV, past = self(ids_BT[:, begin : begin + size], past)
            found.append(logits_BTV)
        return np.concatenate(found, axis=1)


# --- reading what exporters wrote (their logits: test_fixtures) ---


@pytest.mark.parametrize("place", ["optimum_no_past", "optimum_with_past", "optimum_with_past/model.onnx"])
def test_every_bit_of_the_source_is_in_optimums_exports(made, source, place):
    difference = compare(replace(open_checkpoint(made / place), tokenizer_files={}), source)
    assert difference.nothing


def test_the_only_table_may_be_called_the_head(made, source, tmp_path):
    shutil.copy(made / "torch_dynamo" / "model.onnx", tmp_path)
    shutil.copy(made / "source_hf" / "config.json", tmp_path)
    assert compare(open_checkpoint(tmp_path), source).nothing


def test_a_head_without_a_name_is_found_and_turned_back(golden):
    exported = open_checkpoint(golden / "onnx-untied")
    names = {each.name for each in onnx.load(golden / "onnx-untied" / "model.onnx").graph.initializer}
    assert "onnx::MatMul_671" in names
    assert not any("lm_head" in name for name in names)
    assert compare(exported, open_checkpoint(golden / "hf-variants" / "untied")).nothing


def test_the_vocabulary_beside_it_is_read(made):
    checkpoint = open_checkpoint(made / "optimum_with_past")
    assert {"vocab.json", "merges.txt"} <= set(checkpoint.tokenizer_files)


def test_values_that_stand_as_numbers_are_read(made, source, tmp_path):
    def respelled(tensor):
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, values.shape, values.ravel()))

    directory = changed(made, tmp_path, respelled)
    assert onnx.load(directory / "model.onnx").graph.initializer[0].float_data
    assert compare(replace(open_checkpoint(directory), tokenizer_files={}), source).nothing


def changed(made, place, change):
    """A copy of optimum's export, `change` done to each of its tensors."""
    directory = shutil.copytree(made / "optimum_no_past", place / "changed", copy_function=shutil.copyfile)
    model = onnx.load(directory / "model.onnx")
    for tensor in model.graph.initializer:
        change(tensor)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    return directory


# --- writing ---


def test_onnxruntime_computes_what_the_models_makers_did(example, tmp_path):
    onnx_model.write(open_checkpoint(example.directory), tmp_path, silent)
    running = Running(tmp_path)
    for ids_BT, logits_BTV in example.logits:
        for size in (ids_BT.shape[1], 1, 5):  # at once; step by step; prompts that go on
            np.testing.assert_allclose(running.in_parts(ids_BT, size), logits_BTV, atol=TOLERANCE, rtol=0)


def test_it_continues_as_the_source_did(made, ours):
    expected, running = np.load(made / "expected.npz"), Running(ours)
    ids, past = expected["greedy_prompt"].tolist(), None
    new = ids
    while len(ids) < expected["greedy_tokens"].size:
        logits_BTV, past = running([new], past)
        new = [int(logits_BTV[0, -1].argmax())]
        ids = ids + new
    assert ids == expected["greedy_tokens"][0].tolist()


def test_keys_and_values_are_those_of_optimums_export(made, ours):
    expected = np.load(made / "expected.npz")
    _, presents = Running(ours)(expected["tokens_0"])
    stored = expected["ort_present_0"]
    np.testing.assert_allclose(np.stack(presents).reshape(stored.shape), stored, atol=TOLERANCE, rtol=0)


def test_inputs_and_outputs_are_those_of_optimums_export(made, ours):
    told = []
    for directory in (ours, made / "optimum_with_past"):
        session = Running(directory).session
        told.append([(each.name, each.type, each.shape) for each in (*session.get_inputs(), *session.get_outputs())])
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "changes",
    [{"activation": "relu"}, {"scale_attention": False}, {"scale_attention_by_layer": True}, {"norm_epsilon": 0.1}],
)
def test_whatever_a_model_computes_onnxruntime_does(tiny_checkpoint, tmp_path, changes):
    checkpoint = replace(tiny_checkpoint, config=replace(tiny_checkpoint.config, **changes))
    onnx_model.write(checkpoint, tmp_path, silent)
    ids = np.random.default_rng(0).integers(320, size=40).tolist()
    expected_TV = ReferenceEngine(checkpoint, 1).step([Row(0, ids, "all")])
    np.testing.assert_allclose(Running(tmp_path).in_parts(np.array([ids]), 7)[0], expected_TV, atol=TOLERANCE, rtol=0)
    assert compare(open_checkpoint(tmp_path), checkpoint).nothing


def test_rows_of_several_lengths_are_filled_up_on_the_left(ours):
    """As transformers and optimum do it: 0 in the mask, and positions that begin where the row does."""
    running, rows = Running(ours), [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15]]
    alone = [running([row])[0][0, -1] for row in rows] + [running([[*row, 3]])[0][0, -1] for row in rows]
    ids_BT = [[0, 0, 0, *rows[0]], rows[1]]
    mask_BS = np.array([[0, 0, 0, 1, 1, 1, 1], [1] * 7])
    positions_BT = np.maximum(mask_BS.cumsum(axis=1) - 1, 0)
    first_BTV, past = running(ids_BT, None, mask_BS, positions_BT)
    next_BTV, _ = running([[3], [3]], past, np.pad(mask_BS, ((0, 0), (0, 1)), constant_values=1), [[4], [7]])
    together = [*first_BTV[:, -1], *next_BTV[:, -1]]
    np.testing.assert_allclose(together, alone, atol=TOLERANCE, rtol=0)
    assert np.isfinite(first_BTV).all()


def test_onnxs_checker_finds_nothing(ours):
    onnx.checker.check_model(ours / "model.onnx", full_check=True)


def test_there_and_back_every_bit_is_the_same(example, tmp_path):
    there = convert(example.directory, tmp_path / "there", to="onnx")
    source = open_checkpoint(example.directory)
    assert there.difference.nothing
    back = convert(tmp_path / "there", tmp_path / "back")
    assert compare(back.checkpoint, source).nothing
    files = {file.name for file in (tmp_path / "there").iterdir()}
    assert files >= {"model.onnx", "config.json"}
    assert set(there.checkpoint.tokenizer_files) >= set(source.tokenizer_files)


def test_a_large_model_keeps_its_tensors_beside_itself(source, tmp_path, monkeypatch, made):
    monkeypatch.setattr(onnx_file, "LARGEST_BYTES", 100_000)
    directory = convert(source, tmp_path / "large", to="onnx").checkpoint.origin
    assert sorted(os.listdir(directory)) == ["config.json", "model.onnx", "model.onnx_data"]
    stored = onnx.load(tmp_path / "large" / "model.onnx", load_external_data=False).graph.initializer
    places = [
        dict((each.key, each.value) for each in tensor.external_data) for tensor in stored if tensor.data_location
    ]
    assert len(places) == len(source.tensors)
    assert all(place["location"] == "model.onnx_data" and int(place["offset"]) % 4096 == 0 for place in places)
    onnx.checker.check_model(tmp_path / "large" / "model.onnx", full_check=True)
    expected = np.load(made / "expected.npz")
    found = Running(tmp_path / "large").in_parts(expected["tokens_1"], 3)
    np.testing.assert_allclose(found, expected["logits_1"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("dtype", "type"), [("float16", TensorProto.FLOAT16), ("bfloat16", TensorProto.BFLOAT16)])
def test_weights_of_16_bits_take_half_and_are_computed_with_in_float32(source, ours, tmp_path, dtype, type):
    narrow = convert(source, tmp_path / "narrow", to="onnx", dtype=dtype).checkpoint
    file = tmp_path / "narrow" / "model.onnx"
    onnx.checker.check_model(file, full_check=True)
    stored = [each for each in onnx.load(file).graph.initializer if "constant" not in each.name]
    assert {each.data_type for each in stored} == {type}
    assert sum(len(each.raw_data) for each in stored) * 2 == 4 * source.parameter_count()
    running = Running(tmp_path / "narrow")
    types = {each.type for each in (*running.session.get_inputs(), *running.session.get_outputs())}
    assert types == {"tensor(float)", "tensor(int64)"}
    ids_BT = np.random.default_rng(0).integers(320, size=(1, 40))
    expected_TV = ReferenceEngine(narrow, 1).step([Row(0, ids_BT[0].tolist(), "all")])
    np.testing.assert_allclose(running.in_parts(ids_BT, 7)[0], expected_TV, atol=TOLERANCE, rtol=0)
    assert 1e-4 < np.abs(expected_TV - Running(ours)(ids_BT)[0][0]).max() < 0.2


def test_without_onnx_the_extra_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"writing an ONNX model needs .*pip install 'gpt2kit\[onnx\]'"):
        onnx_model.write(source, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_reading_needs_no_package(made, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert compare(replace(open_checkpoint(made / "optimum_no_past"), tokenizer_files={}), source).nothing
