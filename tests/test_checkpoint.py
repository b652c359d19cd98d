from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from gpt2kit.checkpoint import CHUNK, Checkpoint, LazyTensor, check_tensors, tensor_shapes
from gpt2kit.config.model import SIZES
from gpt2kit.errors import ConfigError, WeightMismatch
from gpt2kit.model.initial import initial_checkpoint


def stored(values, dtype):
    return LazyTensor("wte.weight", dtype, values.shape, lambda: values)


def test_every_bfloat16_is_read_exactly():
    bits = np.arange(1 << 16, dtype=np.uint16)
    by_torch = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    ours = stored(bits, "bfloat16").read_float32()
    np.testing.assert_array_equal(ours.view(np.uint32), by_torch.view(np.uint32))


@pytest.mark.parametrize(("bits", "value"), [(0x3F80, 1.0), (0xC000, -2.0), (0x3DCD, 0.10009765625), (0xFF80, -np.inf)])
def test_bfloat16_is_the_upper_half_of_a_float32(bits, value):
    assert stored(np.array([bits], np.uint16), "bfloat16").read_float32() == [np.float32(value)]


@pytest.mark.parametrize(("bits", "value"), [(0x3C00, 1.0), (0x0001, 2.0**-24), (0x7BFF, 65504.0)])
def test_float16_is_widened_exactly(bits, value):
    assert stored(np.array([bits], np.uint16).view(np.float16), "float16").read_float32() == [np.float32(value)]


def float32_values():
    """Every exponent and sign, with the patterns of bits at which rounding turns; infinities and NaN among them.

    Less the very largest, which a narrower type has no room for.
    """
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (high[:, None] | low).reshape(-1).view(np.float32)
    return values[(np.abs(values) < 3.39e38) | ~np.isfinite(values)]


def test_float32_is_rounded_to_bfloat16_as_torch_rounds_it():
    values = float32_values()
    assert values.size > CHUNK
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    rounded = stored(values, "float32").stored_as("bfloat16")
    number = ~np.isnan(values)
    np.testing.assert_array_equal(rounded.read()[number], expected[number])
    assert np.isnan(rounded.read_float32()[~number]).all()
    assert (rounded.dtype, rounded.shape) == ("bfloat16", values.shape)


def test_float32_is_rounded_to_float16_as_torch_rounds_it():
    values = float32_values()
    values = values[(np.abs(values) < 65520) | np.isinf(values)]  # 65520 is the first that is rounded up to infinity
    expected = torch.from_numpy(values).to(torch.float16).numpy()
    np.testing.assert_array_equal(stored(values, "float32").stored_as("float16").read(), expected)


def test_a_matrix_keeps_its_shape_when_it_is_rounded():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for dtype in ("float16", "bfloat16"):
        assert stored(values, "float32").stored_as(dtype).read_float32().tolist() == values.tolist()


@pytest.mark.parametrize(
    ("value", "dtype", "narrower"),
    [
        (65520, "float32", "float16"),
        (3.4e38, "float32", "bfloat16"),
        (1e300, "float64", "float32"),
        (1e300, "float64", "float16"),
        (-1e300, "float64", "bfloat16"),
    ],
)
def test_a_value_beyond_the_narrower_type_is_not_made_infinite(value, dtype, narrower):
    with pytest.raises(ConfigError, match=rf"wte\.weight has values beyond the range of {narrower}; take a wider type"):
        stored(np.array([1, value], dtype), dtype).stored_as(narrower).read()


def test_float64_is_rounded_once():
    value = 1 + 2.0**-11 + 2.0**-40  # by way of float32 it would be a tie, and 1
    assert stored(np.array([value]), "float64").stored_as("float16").read()[0] == np.float16(1 + 2.0**-10)


def test_half_precision_is_widened_and_changed_exactly():
    halves = np.array([0.5, -2.0, 0.0], np.float16)
    assert stored(halves, "float16").stored_as("float32").read().tolist() == [0.5, -2.0, 0.0]
    assert stored(halves, "float16").stored_as("bfloat16").read_float32().tolist() == [0.5, -2.0, 0.0]


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2), ("float64", 8), ("uint8", 1)])
def test_a_tensor_knows_what_it_takes(dtype, size):
    assert LazyTensor("any", dtype, (3, 5), np.empty).size_bytes == 15 * size


# Counted by OpenAI's and Hugging Face's own programs: the head is tied and not counted twice.
@pytest.mark.parametrize(
    ("size", "parameters"),
    [("124M", 124_439_808), ("355M", 354_823_168), ("774M", 774_030_080), ("1558M", 1_557_611_200)],
)
def test_the_released_sizes_have_the_published_number_of_parameters(size, parameters):
    assert initial_checkpoint(SIZES[size].config(50257), {}, seed=0).parameter_count() == parameters


def test_names_and_shapes_are_those_that_transformers_stores(golden, tiny_checkpoint):
    found = load_file(golden / "hf-safetensors/base_model_noprefix/model.safetensors")
    assert tensor_shapes(tiny_checkpoint.config) == {name: values.shape for name, values in found.items()}


def with_tensors(checkpoint, tensors):
    return Checkpoint(checkpoint.config, tensors, {}, "model.bin")


def test_a_checkpoint_that_keeps_its_promise_passes(tiny_checkpoint):
    check_tensors(tiny_checkpoint)


def test_a_missing_tensor_is_named_with_its_shape(tiny_checkpoint):
    tensors = {name: tensor for name, tensor in tiny_checkpoint.tensors.items() if name != "h.1.attn.c_attn.bias"}
    with pytest.raises(WeightMismatch, match=r"^model\.bin: tensor h\.1\.attn\.c_attn\.bias is missing.*\(120,\)"):
        check_tensors(with_tensors(tiny_checkpoint, tensors))


def test_a_wrong_shape_is_named_with_the_right_one(tiny_checkpoint):
    turned = replace(tiny_checkpoint.tensors["h.0.attn.c_attn.weight"], shape=(120, 40))
    tensors = {**tiny_checkpoint.tensors, "h.0.attn.c_attn.weight": turned}
    with pytest.raises(WeightMismatch, match=r"h\.0\.attn\.c_attn\.weight is \(120, 40\).*asks for \(40, 120\)"):
        check_tensors(with_tensors(tiny_checkpoint, tensors))


def test_a_tensor_too_many_is_named(tiny_checkpoint):
    tensors = {**tiny_checkpoint.tensors, "h.3.ln_1.bias": tiny_checkpoint.tensors["h.2.ln_1.bias"]}
    with pytest.raises(WeightMismatch, match=r"1 tensors .*h\.3\.ln_1\.bias.* 3 layers"):
        check_tensors(with_tensors(tiny_checkpoint, tensors))


def test_checking_reads_no_tensor(tiny_checkpoint):
    def fail():
        raise AssertionError("read")

    tensors = {name: replace(tensor, load=fail) for name, tensor in tiny_checkpoint.tensors.items()}
    check_tensors(with_tensors(tiny_checkpoint, tensors))
