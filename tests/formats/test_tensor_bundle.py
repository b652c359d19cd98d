import os
import struct

import google_crc32c
import numpy as np
import pytest

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.sorted_table import table_bytes
from gpt2kit.formats.tensor_bundle import open_tensors, write_tensors
from gpt2kit.progress import silent

DTYPES = {
    **{"f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16", "c64": "complex64", "bool": "bool"},
    **{"i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8", "u8": "uint8"},
}
VALUES = np.arange(6, dtype="<f4").reshape(2, 3)
CONTENT = VALUES.tobytes()
HEADER = b"\x08\x01\x1a\x02\x08\x01"  # one shard, written by version 1
MINUS_ONE = b"\xff" * 9 + b"\x01"


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / "v"


@pytest.fixture
def bundles(shared):
    """What TensorFlow wrote."""
    return shared / "fixtures" / "tensorbundle"


def entry(values=VALUES, offset=0):
    """What the index says of a small float32 tensor: fields 1, 2, 4, 5, 6."""
    crc = google_crc32c.value(values.tobytes())
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    shape = b"".join(bytes([0x12, 2, 8, count]) for count in values.shape)
    numbers = bytes([8, 1, 0x12, len(shape)]) + shape + bytes([0x20, offset, 0x28, values.nbytes])
    return numbers + b"\x35" + struct.pack("<I", masked)


def make(prefix, entries, content=CONTENT, header=HEADER, shard="data-00000-of-00001"):
    """A bundle of these entries, by name."""
    prefix.with_suffix(".index").write_bytes(table_bytes(sorted({b"": header, **entries}.items())))
    prefix.with_suffix(f".{shard}").write_bytes(content)


def refused(prefix, match, error=FormatError):
    with pytest.raises(error, match=match) as raised:
        open_tensors(prefix)
    assert str(prefix) in str(raised.value)


def in_memory(values):
    return LazyTensor("a", str(values.dtype), values.shape, lambda: values)


# --- what TensorFlow wrote ---


@pytest.mark.parametrize("folder", ["dtypes", "snappy_index"])
def test_every_type_is_read(bundles, folder):
    tensors, expected = open_tensors(bundles / folder / "v"), np.load(bundles / folder / "expected.npz")
    for stored in set(expected.files) - {"strs"}:
        tensor = tensors[stored.replace("|", "/")]
        found = tensor.read_float32() if stored == "bf16" else tensor.read()
        assert (found.shape, found.dtype) == (expected[stored].shape, expected[stored].dtype)
        np.testing.assert_array_equal(found, expected[stored])


def test_types_have_numpys_names(bundles):
    tensors = open_tensors(bundles / "dtypes" / "v")
    assert {name: tensors[name].dtype for name in DTYPES} == DTYPES


def test_tensors_of_several_shards_are_read(bundles):
    tensors = open_tensors(bundles / "sharded_adam" / "model.ckpt-2")
    expected = np.load(bundles / "sharded_adam" / "expected.npz")
    for stored in set(expected.files) - {"model|part", "model|part|Adam", "model|part|Adam_1"}:
        np.testing.assert_array_equal(tensors[stored.replace("|", "/")].read(), expected[stored])


@pytest.mark.slow
def test_several_thousand_tensors_are_read(bundles):
    tensors, expected = open_tensors(bundles / "multiblock" / "v"), np.load(bundles / "multiblock" / "expected.npz")
    found = {name: float(tensor.read()) for name, tensor in tensors.items()}
    assert found == dict(zip(expected["names"].tolist(), expected["values"].tolist(), strict=True))


def test_strings_are_listed_and_not_read(bundles):
    strings = open_tensors(bundles / "dtypes" / "v")["strs"]
    assert (strings.dtype, strings.shape) == ("string", (4,))
    with pytest.raises(FormatError, match="strs is stored as string, which cannot be read"):
        strings.read()


def test_a_variable_in_slices_is_listed_and_not_read(bundles):
    sliced = open_tensors(bundles / "sharded_adam" / "model.ckpt-2")["model/part"]
    assert sliced.shape == (10, 4)
    with pytest.raises(FormatError, match="model/part is stored as float32 in slices, which cannot be read"):
        sliced.read()


# --- reading ---


def test_values_across_the_borders_of_words_are_read(prefix):
    make(prefix, {b"a": entry(offset=1)}, b"x" + VALUES.tobytes())
    found = open_tensors(prefix)["a"].read()
    assert found.flags.aligned
    np.testing.assert_array_equal(found, VALUES)


def test_values_are_mapped_not_copied(prefix):
    make(prefix, {b"a": entry()})
    found = open_tensors(prefix)["a"].read()
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def test_one_flipped_bit_is_noticed_with_the_name(prefix):
    content = bytearray(VALUES.tobytes())
    content[5] ^= 4
    make(prefix, {b"model/wte": entry()}, bytes(content))
    with pytest.raises(FormatError, match="model/wte: the checksum of the values"):
        open_tensors(prefix)["model/wte"].read()


def test_each_shard_counts_from_its_own_beginning(prefix):
    make(prefix, {b"a": entry()}, shard="data-00000-of-00002", header=b"\x08\x02")
    second = VALUES + 1
    make(
        prefix, {b"a": entry(), b"b": entry(second) + b"\x18\x01"}, second.tobytes(), b"\x08\x02", "data-00001-of-00002"
    )
    found = {name: tensor.read().tolist() for name, tensor in open_tensors(prefix).items()}
    assert found == {"a": VALUES.tolist(), "b": second.tolist()}


# --- refusing ---


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (b"\x20" + MINUS_ONE, "a claims 24 bytes at -1"),
        (b"\x28" + MINUS_ONE, "a claims -1 bytes"),
        (b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "takes 24 bytes, but has 9223372036854775807"),
        (b"\x18\x05", "a lies in shard 5; the bundle has 1"),
        (b"\x18" + MINUS_ONE, "a lies in shard -1"),
        (b"\x12\x02\x18\x01", "unknown dimensions"),
        (b"\x12" + bytes([36]) + b"\x12\x02\x08\x01" * 9, "9 dimensions; at most 8"),
        (b"\x12\x0d\x12\x0b\x08" + MINUS_ONE, r"the shape \(-1,\)"),
        (b"\x12\x10\x12\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x12\x02\x08\x00", r"\(9223372036854775807, 0\)"),
        (b"\x12\x04\x12\x02\x08\x07", r"a \(7,\) float32 takes 28 bytes, but has 24"),
        (b"\x08\x02", "float64 takes 48 bytes, but has 24"),
        (b"\x2a\x01a", "field 5 holds 1 bytes; expected a number"),
        (b"\x10\x01", "field 2 holds the number 1; expected bytes"),
        (b"\x0f", "of kind 7"),
        (b"\x3a\x7f", "field 7 takes 127 bytes"),
        (b"\x80" * 11, "more than 10 bytes"),
    ],
    ids=str,
)
def test_an_impossible_entry_is_refused(prefix, fields, match):
    make(prefix, {b"a": entry() + fields})
    refused(prefix, match)


def test_tensors_that_share_bytes_are_refused(prefix):
    make(prefix, {b"a": entry(), b"b": entry(offset=20)}, bytes(100))
    refused(prefix, "a and b share bytes of v.data-00000-of-00001")


def test_a_name_that_is_no_text_is_refused(prefix):
    make(prefix, {b"\xff": entry()})
    refused(prefix, "can't decode byte 0xff")


def test_a_missing_shard_is_named(prefix):
    make(prefix, {b"a": entry()})
    prefix.with_name("v.data-00000-of-00001").unlink()
    refused(prefix, "v.data-00000-of-00001: missing; v.index says that it holds a")


def test_a_short_shard_is_noticed_when_it_is_opened(prefix):
    make(prefix, {b"a": entry()}, VALUES.tobytes()[:-1])
    refused(prefix, "the file ends 1 bytes before a does", TruncatedFile)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"\x08\x01\x10\x01", "big-endian"),
        (b"\x08\x01\x1a\x02\x10\x07", "asks for version 7; this reader knows 1"),
        (b"\x0a\x01a", "the header is damaged"),
        (b"", "lies in shard 0; the bundle has 0"),
    ],
)
def test_an_unfit_header_is_refused(prefix, header, match):
    make(prefix, {b"a": entry()}, header=header)
    refused(prefix, match)


def test_an_index_without_a_header_is_refused(prefix):
    prefix.with_suffix(".index").write_bytes(table_bytes([(b"a", entry())]))
    refused(prefix, "has no header")


# --- writing ---


@pytest.mark.parametrize("name", ["openai-tiny", "openai-deep"])
def test_what_tensorflow_wrote_is_written_again_bit_by_bit(shared, prefix, name):
    original = shared / "fixtures" / name / "model.ckpt"
    write_tensors(dict(reversed(open_tensors(original).items())), prefix, silent)
    for suffix in (".index", ".data-00000-of-00001"):
        ours, theirs = prefix.with_suffix(suffix), original.with_name(original.name + suffix)
        assert ours.read_bytes() == theirs.read_bytes()


def test_halves_are_widened(prefix):
    # 1, -2 and infinity as bfloat16.
    bits = np.array([0x3F80, 0xC000, 0x7F80], np.uint16)
    write_tensors({"a": LazyTensor("a", "bfloat16", (3,), lambda: bits)}, prefix, silent)
    assert open_tensors(prefix)["a"].read().tolist() == [1.0, -2.0, float("inf")]


def test_a_turned_matrix_is_written_as_it_looks(prefix):
    write_tensors({"a": in_memory(np.array([[1, 2, 3], [4, 5, 6]], np.float32).T)}, prefix, silent)
    assert open_tensors(prefix)["a"].read().tolist() == [[1, 4], [2, 5], [3, 6]]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 2)], ids=str)
def test_every_shape_comes_back(prefix, shape):
    write_tensors({"a": in_memory(np.ones(shape, np.float32))}, prefix, silent)
    assert open_tensors(prefix)["a"].read().shape == shape


def test_the_array_that_was_written_can_still_be_changed(prefix):
    values = np.ones(3, np.float32)
    write_tensors({"a": in_memory(values)}, prefix, silent)
    values[0] = 2


def test_every_tensor_is_reported(prefix):
    reports = []
    write_tensors({name: in_memory(np.zeros(5, np.float32)) for name in "ab"}, prefix, reports.append)
    assert [(report.task, report.done, report.total, report.unit) for report in reports] == [
        ("write", 20, 40, "byte"),
        ("write", 40, 40, "byte"),
    ]


def test_a_tensor_that_cannot_be_read_leaves_no_index(prefix):
    def fail():
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_tensors({"a": LazyTensor("a", "float32", (1,), fail)}, prefix, silent)
    assert os.listdir(prefix.parent) == []
