"""ONNX files that lie, or hold something else than a GPT-2."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from gpt2kit.errors import FormatError, TruncatedFile, WeightMismatch
from gpt2kit.formats import onnx_file, onnx_model
from gpt2kit.formats.protobuf import bytes_field
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint

WTE = "transformer.wte.weight"


@pytest.fixture
def directory(shared, tmp_path):
    """A copy of optimum's export."""
    place = tmp_path / "model"
    return shutil.copytree(shared / "fixtures" / "onnx" / "optimum_no_past", place, copy_function=shutil.copyfile)


@pytest.fixture
def beside(shared, tmp_path, monkeypatch):
    """A directory with a model of ours whose tensors lie beside it."""
    monkeypatch.setattr(onnx_file, "LARGEST_BYTES", 0)
    onnx_model.write(open_checkpoint(shared / "fixtures" / "onnx" / "source_hf"), tmp_path / "beside", silent)
    return tmp_path / "beside"


def change(directory, change_tensors):
    """Do something to the tensors of a model, by name."""
    model = onnx.load(directory / "model.onnx", load_external_data=False)
    change_tensors(model.graph.initializer, {each.name: each for each in model.graph.initializer})
    (directory / "model.onnx").write_bytes(model.SerializeToString())


def tell(tensor, **told):
    """What the model says about where a tensor lies."""
    for entry in tensor.external_data:
        entry.value = told.get(entry.key, entry.value)


def test_a_place_outside_of_the_directory_is_not_followed(shared):
    with pytest.raises(FormatError, match=r"wte\.weight lies in '\.\./.*/etc/passwd', missing; expected a file in the"):
        open_checkpoint(shared / "fixtures" / "bad" / "onnx_external_data_traversal" / "model.onnx")


def test_garbage_is_refused(shared):
    with pytest.raises(FormatError, match="no ONNX model, or a damaged one"):
        open_checkpoint(shared / "fixtures" / "bad" / "onnx_garbage" / "model.onnx")


@pytest.mark.parametrize("location", ["", ".", "..", "/etc/passwd", "../other/weights", "sub/weights", "gone"])
def test_only_files_of_the_same_directory_are_opened(beside, location):
    for place in (beside / "sub", beside.parent / "other"):
        place.mkdir()
        shutil.copy(beside / "model.onnx_data", place / "weights")
    change(beside, lambda _, named: tell(named[WTE], location=location))
    with pytest.raises(FormatError, match=r"missing; expected a file in the same directory: fetch it"):
        open_checkpoint(beside)


@pytest.mark.parametrize(
    ("told", "error", "problem"),
    [
        ({"offset": "-4096"}, FormatError, "offset is '-4096'; expected a number"),
        ({"offset": "1e3"}, FormatError, "offset is '1e3'; expected a number"),
        ({"offset": "9" * 30}, FormatError, "expected a number"),
        ({"length": "8"}, FormatError, r"\(320, 40\) float32 takes 51200 bytes, but has 8"),
        ({"offset": "999999999"}, TruncatedFile, r"the file ends \d+ bytes before transformer.wte.weight does"),
    ],
)
def test_places_that_cannot_be_are_refused(beside, told, error, problem):
    change(beside, lambda _, named: tell(named[WTE], **told))
    with pytest.raises(error, match=problem):
        open_checkpoint(beside)


def test_the_file_beside_it_may_not_be_cut(beside):
    os.truncate(beside / "model.onnx_data", 100_000)
    with pytest.raises(TruncatedFile, match="the file ends"):
        open_checkpoint(beside)


@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
def test_a_cut_model_is_refused(directory, size):
    os.truncate(directory / "model.onnx", size)
    with pytest.raises(FormatError, match="no ONNX model"):
        open_checkpoint(directory)


def test_a_shape_that_its_values_do_not_fill_is_refused(directory):
    def lie(_, named):
        named[WTE].dims[0] = 2**40

    change(directory, lie)
    with pytest.raises(FormatError, match=r"takes 175921860444160 bytes, but has 51200"):
        open_checkpoint(directory)


def test_more_elements_than_anything_has_are_refused(directory):
    change(directory, lambda _, named: named[WTE].dims.extend([2**62, 2**62]))
    with pytest.raises(FormatError, match="claims 4 dimensions, or over"):
        open_checkpoint(directory)


def test_a_file_of_nothing_but_fields_is_refused_soon(tmp_path):
    graph = bytes_field(5, b"") * 300_000
    (tmp_path / "model.onnx").write_bytes(bytes_field(7, graph))
    with pytest.raises(FormatError, match="it has more than 200,000 fields"):
        open_checkpoint(tmp_path)


def test_a_second_tensor_of_the_same_name_is_refused(directory):
    change(directory, lambda tensors, named: tensors.append(named[WTE]))
    with pytest.raises(FormatError, match=r"two tensors are called transformer\.wte\.weight"):
        open_checkpoint(directory)


def renamed(old, new):
    def rename(_, named):
        named[old].name = new

    return rename


def added(name, values):
    return lambda tensors, _: tensors.append(numpy_helper.from_array(values, name))


@pytest.mark.parametrize(
    ("done", "problem"),
    [
        (renamed(WTE, "table"), "tensor wte.weight is missing"),
        (renamed("transformer.h.1.ln_1.bias", "model.wte.weight"), r"is a second wte\.weight; which of them counts"),
        (added("score.weight", np.zeros((2, 40), np.float32)), r"score\.weight is the head of a classifier"),
        (added("onnx::MatMul_1_quantized", np.zeros((40, 120), np.int8)), "is rounded to whole numbers"),
        (added("model.wpe.weight.x", np.zeros(3, np.float32)), None),
    ],
)
def test_other_models_are_told_from_a_gpt2(directory, done, problem):
    change(directory, done)
    if problem is None:
        open_checkpoint(directory)
        return
    with pytest.raises(WeightMismatch, match=problem):
        open_checkpoint(directory)


def test_what_onnxruntime_has_rounded_is_told(beside, tmp_path):
    (tmp_path / "rounded").mkdir()
    quantize_dynamic(beside / "model.onnx", tmp_path / "rounded" / "model.onnx")
    with pytest.raises(WeightMismatch, match="_quantized is rounded to whole numbers; name the model in full"):
        open_checkpoint(tmp_path / "rounded")


def test_a_type_that_no_weight_has_is_named(directory):
    def lie(_, named):
        named[WTE].data_type = TensorProto.FLOAT8E4M3FN

    change(directory, lie)
    with pytest.raises(WeightMismatch, match=r"wte\.weight is ONNX's type 17; expected float64, float32"):
        open_checkpoint(directory)


def test_halves_number_by_number_are_refused(directory):
    def respell(_, named):
        values = numpy_helper.to_array(named[WTE])
        named[WTE].CopyFrom(helper.make_tensor(WTE, TensorProto.FLOAT16, values.shape, values.ravel()))

    change(directory, respell)
    with pytest.raises(WeightMismatch, match=r"wte\.weight is float16 number by number; expected float64, float32"):
        open_checkpoint(directory)


def test_without_a_configuration_the_heads_cannot_be_guessed(directory):
    (directory / "config.json").unlink()
    with pytest.raises(FormatError, match=r"config\.json is missing, and the number of heads cannot be guessed"):
        open_checkpoint(directory)


def test_a_directory_without_a_model_is_told(tmp_path):
    with pytest.raises(FormatError, match=r"holds no model; expected model\.onnx or decoder_model\.onnx"):
        onnx_model.read(Path(tmp_path))
