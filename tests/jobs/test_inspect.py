import shutil

import numpy as np
import pytest
import safetensors.torch
from safetensors.numpy import load_file, save_file

from gpt2kit.jobs.inspect import tensor_figures
from gpt2kit.resolve import open_checkpoint


@pytest.fixture
def damaged(here, model):
    """A model with two broken values in one tensor."""
    shutil.copyfile(model / "config.json", here / "config.json")
    tensors = load_file(model / "model.safetensors")
    tensors["transformer.h.1.mlp.c_fc.bias"][:] = 2
    tensors["transformer.h.1.mlp.c_fc.bias"][[0, 5]] = np.nan, np.inf
    save_file(tensors, here / "model.safetensors", metadata={"format": "pt"})
    return {figures.name: figures for figures in tensor_figures(open_checkpoint(here))}


def test_every_tensor_is_measured_as_numpy_measures_it(model):
    stored = load_file(model / "model.safetensors")
    figures = tensor_figures(open_checkpoint(model))
    assert len(figures) == len(stored)
    for tensor in figures:
        values = stored[f"transformer.{tensor.name}"].astype(np.float64)
        assert (tensor.shape, tensor.dtype) == (values.shape, "float32")
        assert (tensor.mean, tensor.deviation) == pytest.approx((values.mean(), values.std()), rel=1e-6)


def test_a_sound_model_has_no_broken_values(model):
    assert sum(tensor.not_finite for tensor in tensor_figures(open_checkpoint(model))) == 0


def test_broken_values_are_counted_where_they_are(damaged):
    assert {name: tensor.not_finite for name, tensor in damaged.items() if tensor.not_finite} == {
        "h.1.mlp.c_fc.bias": 2
    }


def test_broken_values_do_not_spoil_the_figures_of_the_others(damaged):
    tensor = damaged["h.1.mlp.c_fc.bias"]
    assert (tensor.mean, tensor.deviation) == (2, 0)


def test_the_known_broken_model_is_found_out(shared):
    """Made by another program: shared/fixtures/bad/README says which."""
    figures = tensor_figures(open_checkpoint(shared / "fixtures" / "bad" / "st_nan_weights"))
    assert any(tensor.not_finite for tensor in figures)


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_half_precision_is_measured_as_torch_measures_it(golden, precision, dtype):
    stored = safetensors.torch.load_file(golden / "hf-halfprec" / precision / "model.safetensors")
    for tensor in tensor_figures(open_checkpoint(golden / "hf-halfprec" / precision)):
        assert tensor.dtype == dtype
        assert tensor.mean == pytest.approx(stored[f"transformer.{tensor.name}"].double().mean().item(), abs=1e-9)


def test_progress_counts_the_tensors(model):
    reports = []
    figures = tensor_figures(open_checkpoint(model), reports.append)
    assert [report.done for report in reports] == list(range(1, len(figures) + 1))
    assert {report.total for report in reports} == {len(figures)}
