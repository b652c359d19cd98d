"""The native engine's parts, each against numpy: packing, products of every format and instruction set, choices."""

import numpy as np
import pytest

from gpt2kit import _native
from gpt2kit.config.model import ModelConfig
from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.generate import quick_sampling
from gpt2kit.generate.engine import Row
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.generate.sampling import RowState, choose, uniform
from gpt2kit.model.initial import initial_checkpoint

FORMATS = ["fp32", "bf16", "int8", "int6", "int4"]
SHAPES = [(1, 1), (64, 64), (65, 63), (200, 130), (130, 1600)]  # outputs, inputs


def matrix(rows, width, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def packed(format, values):
    into = np.full(_native.packed_bytes(format, *values.shape), 255, np.uint8)
    _native.pack(format, values, into, 2)
    return into


def unpacked(format, values):
    """What a matrix is once it has been packed."""
    into = np.empty(values.shape, np.float32)
    _native.unpack(format, packed(format, values), *values.shape, into)
    return into


def multiply(isa, format, values, inputs):
    rows = -(-values.shape[0] // 64) * 64
    bias = np.arange(rows, dtype=np.float32)
    outputs = np.empty((len(inputs), rows), np.float32)
    _native.multiply(isa, format, packed(format, values), bias, inputs, outputs)
    return outputs[:, : values.shape[0]] - bias[: values.shape[0]]


def to_bytes_and_back(inputs, group):
    """Inputs as integers from -127 to 127 for every group of columns, the largest at one end."""
    tokens, width = inputs.shape
    padded = np.pad(inputs, ((0, 0), (0, -width % 64))).reshape(tokens, -1, group)
    scales = np.abs(padded).max(axis=-1, keepdims=True) / np.float32(127)
    numbers = np.rint(padded / np.where(scales > 0, scales, 1))
    return (numbers * scales).reshape(tokens, -1)[:, :width]


def as_read(isa, format, inputs):
    """What a product makes of its inputs before it multiplies."""
    if format == "bf16" and isa in ("avx512_bf16", "amx"):
        return (np.ascontiguousarray(inputs).view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)
    return to_bytes_and_back(inputs, 32 if format == "int4" else 64) if format.startswith("int") else inputs


# --- packing ---


@pytest.mark.parametrize("shape", SHAPES)
def test_fp32_is_packed_without_loss(shape):
    np.testing.assert_array_equal(unpacked("fp32", matrix(*shape)), matrix(*shape))


def test_a_transposed_matrix_is_packed_as_what_it_stands_for():
    values = matrix(130, 70)
    for format in FORMATS:
        np.testing.assert_array_equal(packed(format, values), packed(format, np.asfortranarray(values)))


def test_bf16_is_the_nearest_ties_to_even():
    bits = np.array([[0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF818000, 0x00000001]], np.uint32)
    expected = np.array([[0x3F800000, 0x3F820000, 0x3F810000, 0x3F800000, 0xBF820000, 0]], np.uint32)
    np.testing.assert_array_equal(unpacked("bf16", bits.view(np.float32)).view(np.uint32), expected)


@pytest.mark.parametrize("scale", [0.01, 1, 1000])
def test_int8_is_within_half_a_step_of_its_group(scale):
    values = matrix(70, 200) * np.float32(scale)
    found = unpacked("int8", values)
    for begin in range(0, 200, 64):
        group = values[:, begin : begin + 64]
        step = np.abs(group).max(axis=1, keepdims=True) / 127
        # The scale is a half: its own rounding may move the largest by a 2048th.
        assert (np.abs(found[:, begin : begin + 64] - group) <= 0.5 * step + 127 * step / 2048 + 1e-7).all()


@pytest.mark.parametrize(("format", "group", "levels", "share"), [("int6", 64, 32, 0.95), ("int4", 32, 8, 0.9)])
def test_fewer_bits_err_less_than_the_range_cut_into_even_steps(format, group, levels, share):
    values = matrix(64, 640)
    groups = values.reshape(64, -1, group)
    farthest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1, keepdims=True), axis=-1)
    step = farthest / -levels  # as llama.cpp's Q4_0 takes it
    plain = (np.clip(np.rint(groups / step), -levels, levels - 1) * step).reshape(values.shape)
    assert np.square(unpacked(format, values) - values).mean() < share * np.square(plain - values).mean()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [0, 0.25, -3])
def test_a_matrix_of_one_number_stays_it(format, value):
    values = np.full((65, 70), value, np.float32)
    np.testing.assert_allclose(unpacked(format, values), values, rtol=2**-11)


@pytest.mark.parametrize(("format", "bits"), [*zip(FORMATS, [32, 16, 8.25, 6.25, 4.5], strict=True)])
def test_so_many_bits_a_weight(format, bits):
    assert _native.packed_bytes(format, 128, 192) * 8 == bits * 128 * 192


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="another size"):
        _native.pack("int8", matrix(64, 64), np.empty(10, np.uint8), 1)
    with pytest.raises(ValueError, match="no format of weights"):
        _native.packed_bytes("int3", 64, 64)


# --- products ---


@pytest.mark.slow  # a sweep
@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 12, 13])
def test_products_are_those_of_numpy(isa, format, shape, tokens):
    values, inputs = matrix(*shape), matrix(tokens, shape[1], seed=1)
    expected = as_read(isa, format, inputs).astype(np.float64) @ unpacked(format, values).astype(np.float64).T
    found = multiply(isa, format, values, inputs)
    np.testing.assert_allclose(found, expected, atol=2e-5 * shape[1] ** 0.5 + 1e-4, rtol=1e-5)


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("format", FORMATS)
def test_a_token_alone_gives_the_same_bits_as_among_others(isa, format):
    values, inputs = matrix(130, 200), matrix(23, 200, seed=1)
    together = multiply(isa, format, values, inputs)
    alone = np.concatenate([multiply(isa, format, values, inputs[t : t + 1]) for t in range(23)])
    np.testing.assert_array_equal(together, alone)


# --- whole steps ---


@pytest.mark.slow  # a sweep
@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("bf16_cache", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_row_gives_the_same_bits_alone_in_a_batch_and_in_a_block(
    isa, precision, bf16_cache, threads, tiny_checkpoint, monkeypatch
):
    monkeypatch.setenv("GPT2KIT_ISA", isa)
    engine = NativeEngine(tiny_checkpoint, 4, precision, threads, bf16_cache=bf16_cache)
    ids = [n * 37 % tiny_checkpoint.config.vocab_size for n in range(50)]
    block = engine.step([Row(0, ids, "all")]).copy()
    alone = np.concatenate([engine.step([Row(1, [id])]).copy() for id in ids])
    engine.step([Row(2, ids[:20], "none"), Row(3, ids[:7], "none")])
    batch = np.concatenate([engine.step([Row(3, [ids[7 + n]]), Row(2, [ids[20 + n]])]).copy() for n in range(30)])
    np.testing.assert_array_equal(alone, block)
    np.testing.assert_array_equal(batch[1::2], block[20:])
    np.testing.assert_array_equal(batch[::2], block[7:37])


@pytest.mark.parametrize(("precision", "within"), [("bf16", 0.1), ("int8", 0.5), ("int4", 4)])
def test_fewer_bits_stay_near(precision, within, tiny_checkpoint):
    ids = [n * 37 % tiny_checkpoint.config.vocab_size for n in range(50)]
    exact = NativeEngine(tiny_checkpoint, 1, "fp32", 2).step([Row(0, ids, "all")])
    near = NativeEngine(tiny_checkpoint, 1, precision, 2).step([Row(0, ids, "all")])
    assert 0 < np.abs(near - exact).max() < within


def test_steps_longer_than_a_pass_are_one():
    config = ModelConfig(vocab_size=100, window=700, width=32, layers=2, heads=4, inner_width=64)
    checkpoint = initial_checkpoint(config, {}, seed=0)
    ids = [n * 37 % 100 for n in range(700)]
    whole, parts = NativeEngine(checkpoint, 2, "fp32", 2), NativeEngine(checkpoint, 2, "fp32", 2)
    together = whole.step([Row(0, ids, "all"), Row(1, ids[:300], "all")]).copy()
    apart = np.concatenate([parts.step([Row(0, ids[n : n + 100], "all")]).copy() for n in range(0, 700, 100)])
    np.testing.assert_array_equal(together[:700], apart)
    np.testing.assert_array_equal(together[700:], apart[:300])


# --- choices ---

SETTINGS = [
    (1.0, 0, 1.0),
    (0.7, 40, 1.0),
    (1.0, 0, 0.9),
    (1.3, 100, 0.5),
    (0.0, 0, 1.0),
    (1.0, 1, 1.0),
    (1e-3, 7, 0.99),
    (0.8, 0, 0.3),
    (1.5, 0, 0.999),
    (1.0, 700, 0.95),
]


def chosen(logits_RV, rows):
    kinds = (float, np.int64, float, float)
    columns = [np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    ids = np.empty(len(rows), np.int64)
    _native.sample_rows(logits_RV, *columns, ids, 2)
    return ids


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("rows", "vocabulary"), [(200, 1000), (20, 50257)])
def test_choices_are_those_of_numpy_for_the_same_counter(
    temperature, top_k, top_p, ties, rows, vocabulary, monkeypatch
):
    logits_RV = np.random.default_rng(0).standard_normal((rows, vocabulary)).astype(np.float32) * 3
    if ties:
        logits_RV = np.rint(logits_RV)
    logits_RV[:, 5] = -np.inf
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, seed=7)
    states = [RowState(sampling, [0] * row, 0, sample=row % 3) for row in range(rows)]
    monkeypatch.setattr(quick_sampling, "_native", None)
    expected = choose(logits_RV, states)
    draws = [uniform(7, row % 3, row) for row in range(rows)]
    found = chosen(logits_RV, [(temperature, top_k, top_p, draw) for draw in draws])
    np.testing.assert_array_equal(found, expected.ids_R)


def test_rows_without_numbers_choose_none():
    logits_RV = np.zeros((4, 10), np.float32)
    logits_RV[0, 3], logits_RV[1, 3], logits_RV[2] = np.nan, np.inf, -np.inf
    ids = chosen(logits_RV, [(1.0, 0, 1.0, 0.5)] * 4)
    assert ids.tolist()[:3] == [-1, -1, -1]
    assert ids[3] >= 0


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("vocabulary", [1, 15, 1023, 50257])
def test_logarithms_of_sums_are_those_of_numpy(isa, vocabulary, monkeypatch):
    monkeypatch.setenv("GPT2KIT_ISA", isa)
    logits_RV = np.random.default_rng(0).standard_normal((9, vocabulary)).astype(np.float32) * 5
    logits_RV[3, vocabulary // 2 :] = -np.inf
    logits_RV[3, 0] = 2
    exact = logits_RV.astype(np.float64)
    expected = exact.max(axis=1) + np.log(np.exp(exact - exact.max(axis=1, keepdims=True)).sum(axis=1))
    found = np.empty(9)
    _native.log_sum_exp(logits_RV, found, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    logits_RV[5, vocabulary - 1] = np.nan
    _native.log_sum_exp(logits_RV, found, 2)
    assert np.flatnonzero(np.isnan(found)).tolist() == [5]


def test_quick_choices_are_those_of_numpy_whatever_else_is_asked(monkeypatch):
    """The same rows with and without C++: bans, penalties, forced ids and neighbours that numpy chooses for."""
    logits_RV = np.random.default_rng(3).standard_normal((60, 500)).astype(np.float32) * 3
    kinds = [
        SamplingConfig(top_k=40, seed=1),
        SamplingConfig(top_k=5, top_p=0.8, temperature=0.7, seed=2),
        SamplingConfig(temperature=0, seed=3),
        SamplingConfig(top_k=40, banned_ids=(1, 2), repetition_penalty=1.3, logit_bias={7: 5.0}, seed=4),
        SamplingConfig(top_k=40, forced_ids=(11,), seed=5),
        SamplingConfig(min_p=0.1, seed=6),
        SamplingConfig(seed=7),
    ]
    states = [RowState(kinds[row % 7], [3, 4, 5], 2 + row % 2, sample=row, banned=[9]) for row in range(60)]
    for wanted in (states, [state for state in states if state.sampling is kinds[0]]):
        quick = choose(logits_RV[: len(wanted)], wanted)
        with monkeypatch.context() as patch:
            patch.setattr(quick_sampling, "_native", None)
            plain = choose(logits_RV[: len(wanted)], wanted)
        np.testing.assert_array_equal(quick.ids_R, plain.ids_R)
        np.testing.assert_allclose(quick.logprobs_R, plain.logprobs_R, atol=1e-6)
