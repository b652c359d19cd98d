"""Damaged ONNX models: bits of dimensions, names and places flipped, parts cut out and doubled."""

import warnings

import pytest

from gpt2kit.formats import onnx_file, onnx_model
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("largest_bytes", "seed"), [(10**9, 0), (0, 10**6)])
def test_a_damaged_model(shared, tmp_path, survives, monkeypatch, largest_bytes, seed):
    monkeypatch.setattr(onnx_file, "LARGEST_BYTES", largest_bytes)
    onnx_model.write(open_checkpoint(shared / "fixtures" / "onnx" / "source_hf"), tmp_path, silent)
    place = tmp_path / "model.onnx"

    def open_and_read(content):
        place.write_bytes(content)
        with warnings.catch_warnings(action="ignore"):  # a head of its own, sums of NaN
            for tensor in onnx_model.read(place).tensors.values():
                tensor.read().sum(dtype="float64")

    outcomes = survives(place.read_bytes(), open_and_read, seed)
    assert {"accepted", "FormatError"} <= set(outcomes)
