import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.safetensors_file import open_tensors, write_tensors

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
# The safetensors library wrote it; 100 bytes of tensors after the header.
SMALL = safetensors.numpy.save(
    {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(9, dtype=np.int64), "c": np.ones(2, np.float16)}
)
(HEADER_BYTES,) = struct.unpack("<Q", SMALL[:8])
HEADER, TENSOR_BYTES = json.loads(SMALL[8 : 8 + HEADER_BYTES]), SMALL[8 + HEADER_BYTES :]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


def assembled(header, tensor_bytes=TENSOR_BYTES):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensor_bytes


def in_memory(values, dtype=None):
    return LazyTensor("a", dtype or str(values.dtype), values.shape, lambda: values)


# --- reading what others wrote ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_library_writes_is_read(file, dtype):
    values = np.array([[0, 1, 2], [3, 100, 1]]).astype(dtype)
    safetensors.numpy.save_file({"a": values}, file)
    found = open_tensors(file)["a"].read()
    assert (found.dtype.name, found.tolist()) == (dtype, values.tolist())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_promised_type_is_the_stored_one(file, dtype):
    safetensors.numpy.save_file({"a": np.zeros((2, 3), dtype)}, file)
    tensor = open_tensors(file)["a"]
    assert (tensor.name, tensor.dtype, tensor.shape) == ("a", dtype, (2, 3))


def test_bfloat16_is_read_exactly(file):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    safetensors.torch.save_file({"a": values}, file)
    np.testing.assert_array_equal(open_tensors(file)["a"].read_float32(), values.float().numpy())


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 1), (2, 3, 4, 5)], ids=str)
def test_every_shape_is_read(file, shape):
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    safetensors.numpy.save_file({"a": values}, file)
    found = open_tensors(file)["a"].read()
    assert (found.shape, found.tolist()) == (shape, values.tolist())


def test_many_tensors_are_told_apart(file):
    file.write_bytes(SMALL)
    assert {name: tensor.read().tolist() for name, tensor in open_tensors(file).items()} == {
        "a": [[0, 1, 2], [3, 4, 5]],
        "b": list(range(9)),
        "c": [1, 1],
    }


def test_a_file_without_tensors_is_read(file):
    file.write_bytes(safetensors.numpy.save({}))
    assert open_tensors(file) == {}


# --- writing for others ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_library_reads_what_we_write(file, dtype):
    values = np.array([[0, 1, 2], [3, 100, 1]]).astype(dtype)
    write_tensors({"a": in_memory(values)}, file)
    found = safetensors.numpy.load_file(file)["a"]
    assert (found.dtype.name, found.tolist()) == (dtype, values.tolist())


def test_torch_reads_the_bfloat16_we_write(file):
    # 1, -2 and infinity, in bits.
    write_tensors({"a": in_memory(np.array([0x3F80, 0xC000, 0x7F80], np.uint16), "bfloat16")}, file)
    found = safetensors.torch.load_file(file)["a"]
    assert (found.dtype, found.tolist()) == (torch.bfloat16, [1.0, -2.0, float("inf")])


def test_a_turned_matrix_is_written_as_it_looks(file):
    write_tensors({"a": in_memory(np.array([[1, 2, 3], [4, 5, 6]], np.float32).T)}, file)
    assert safetensors.numpy.load_file(file)["a"].tolist() == [[1, 4], [2, 5], [3, 6]]


def test_tensors_of_all_widths_lie_side_by_side(file):
    written = {
        "i": np.ones(3, np.int8),
        "f": np.full(2, 0.5, np.float32),
        "d": np.full((1, 2), 0.25),
        "n": np.zeros((0, 4)),
    }
    write_tensors({name: in_memory(values) for name, values in written.items()}, file)
    found = safetensors.torch.load_file(file)
    assert {name: values.tolist() for name, values in found.items()} == {
        "i": [1, 1, 1],
        "f": [0.5, 0.5],
        "d": [[0.25, 0.25]],
        "n": [],
    }


def test_a_single_number_is_written(file):
    write_tensors({"a": in_memory(np.array(3, np.float32))}, file)
    assert safetensors.numpy.load_file(file)["a"] == np.float32(3)


def test_transformers_finds_the_mark_it_asks_for(file):
    write_tensors({"a": in_memory(np.zeros(1, np.float32))}, file)
    with safetensors.safe_open(file, "numpy") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_the_tensors_begin_at_a_multiple_of_eight(file):
    write_tensors({"a": in_memory(np.zeros(1, np.float32))}, file)
    (header_bytes,) = struct.unpack("<Q", file.read_bytes()[:8])
    assert header_bytes % 8 == 0


def test_a_tensor_that_cannot_be_read_leaves_the_old_file(file):
    def fail():
        raise OSError("gone")

    file.write_bytes(SMALL)
    with pytest.raises(OSError, match="gone"):
        write_tensors({"a": replace(in_memory(np.zeros(1, np.float32)), load=fail)}, file)
    assert file.read_bytes() == SMALL


# --- refusing ---


@pytest.mark.slow
@pytest.mark.parametrize("length", range(len(SMALL)))
def test_every_cut_is_noticed(file, length):
    file.write_bytes(SMALL[:length])
    with pytest.raises(TruncatedFile, match=r"model\.safetensors: .*(too short|claims|ends)"):
        open_tensors(file)


def test_a_byte_too_many_is_noticed(file):
    file.write_bytes(SMALL + b"\0")
    with pytest.raises(FormatError, match="1 bytes after the last tensor, expected none"):
        open_tensors(file)


@pytest.mark.parametrize("length", [16_000_001, 2**60, 2**64 - 1])
def test_an_absurd_header_is_refused_before_it_is_read(file, length):
    file.write_bytes(struct.pack("<Q", length) + SMALL[8:])
    with pytest.raises(FormatError, match=f"claims a header of {length} bytes; at most 16000000 are allowed"):
        open_tensors(file)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_a_header_that_is_not_json_is_refused(file, text):
    file.write_bytes(assembled(text))
    with pytest.raises(FormatError, match=r"not JSON: .*\(at byte 8\)$"):
        open_tensors(file)


def test_a_header_that_is_a_list_is_refused(file):
    file.write_bytes(assembled([]))
    with pytest.raises(FormatError, match="a JSON list; expected an object"):
        open_tensors(file)


def with_entry(**changes):
    return HEADER | {"a": HEADER["a"] | changes}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dtype": "F8_E4M3"}, "a has the type 'F8_E4M3'; known are F64"),
        ({"dtype": None}, "a has the type None"),
        ({"shape": [2, 4]}, r"a \(2, 4\) F32 takes 32 bytes, but has 24"),
        ({"shape": [-2, -3]}, "must be whole numbers from 0"),
        ({"shape": [True, 6]}, "must be whole numbers from 0"),
        ({"shape": [2.0, 3.0]}, "must be whole numbers from 0"),
        ({"shape": [2**63, 2**63]}, "must be whole numbers from 0"),
        ({"shape": None}, "a: expected dtype, shape and two data_offsets"),
        ({"data_offsets": [0]}, "a: expected dtype, shape and two data_offsets"),
        ({"data_offsets": [24, 0]}, r"takes 24 bytes, but has -24"),
        ({"data_offsets": [4, 28]}, "a begins here; expected at"),
        ({"data_offsets": [2**60, 2**60 + 24]}, "begins here; expected at"),
    ],
    ids=str,
)
def test_a_lie_about_a_tensor_is_refused(file, changes, problem):
    file.write_bytes(assembled(with_entry(**changes)))
    with pytest.raises(FormatError, match=problem):
        open_tensors(file)


def test_an_entry_without_a_type_is_refused(file):
    file.write_bytes(assembled(HEADER | {"a": {"shape": [2, 3], "data_offsets": [0, 24]}}))
    with pytest.raises(FormatError, match="a: expected dtype, shape and two data_offsets"):
        open_tensors(file)


def test_a_hole_between_tensors_is_refused(file):
    file.write_bytes(assembled({name: entry for name, entry in HEADER.items() if name != "a"}))
    with pytest.raises(FormatError, match="begins here; expected at"):
        open_tensors(file)


@pytest.mark.parametrize("shape", [[1] * 70, [0, 2**62, 2**62]], ids=["rank", "emptiness"])
def test_a_shape_that_numpy_cannot_hold_is_refused(file, shape):
    size = 0 if 0 in shape else 4
    file.write_bytes(assembled({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}, bytes(size)))
    with pytest.raises(FormatError):
        open_tensors(file)["a"].read()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 8, 24, 72, 96, 100, 2**63])
    | st.floats()
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [("a",), *[("b", part) for part in ("dtype", "shape", "data_offsets")], ("__metadata__",), ("new",)]


def mutated(path, value):
    *parents, last = path
    header = json.loads(json.dumps(HEADER))
    entry = header
    for parent in parents:
        entry = entry[parent]
    entry[last] = value
    return header


@pytest.mark.slow
@given(path=st.sampled_from(FIELDS), value=JSON)
@example(path=("b", "dtype"), value=[])
@example(path=("b", "dtype"), value={})
def test_a_changed_header_is_refused_or_read_as_it_says(tmp_path_factory, path, value):
    file = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    file.write_bytes(assembled(mutated(path, value)))
    try:
        tensors = open_tensors(file)
    except FormatError:
        return
    assert all(tensor.read().shape == tensor.shape for tensor in tensors.values())


@given(place=st.integers(0, len(SMALL) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_read_as_it_says(tmp_path_factory, place, byte):
    file = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    file.write_bytes(SMALL[:place] + bytes([byte]) + SMALL[place + 1 :])
    try:
        tensors = open_tensors(file)
    except FormatError:
        return
    assert all(tensor.read().shape == tensor.shape for tensor in tensors.values())
