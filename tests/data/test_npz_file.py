import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gpt2kit.data.npz_file import StoredArray, read_arrays, write_arrays
from gpt2kit.errors import FormatError

IDS = arrays.arrays(st.sampled_from([np.int64, np.int32, np.uint16]), st.integers(0, 300), elements=st.integers(0, 319))


def read(path, vocab_size=320):
    found = []
    for array in read_arrays(path, vocab_size):
        found.append(np.concatenate([np.empty(0, array.dtype), *array.blocks]))
        assert found[-1].size == array.size
    return found


@pytest.fixture
def saved(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", np.array([1, 2, 3]), np.arange(300_000) % 320)
    return tmp_path / "a.npz"


@pytest.mark.slow
@given(chunks=st.lists(IDS, min_size=1, max_size=3), save=st.sampled_from([np.savez, np.savez_compressed]))
def test_what_numpy_wrote_is_read(tmp_path_factory, chunks, save):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    save(path, *chunks)
    for ours, theirs in zip(read(path), chunks, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@given(chunks=st.lists(IDS, min_size=1, max_size=3))
def test_what_is_written_is_numpys_file_byte_for_byte(chunks):
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_arrays(ours, [StoredArray(chunk.dtype, chunk.size, iter([chunk])) for chunk in chunks])
    np.savez_compressed(theirs, *chunks)
    assert ours.getvalue() == theirs.getvalue()


def test_a_long_array_is_read_in_blocks(saved):
    sizes = [[block.size for block in array.blocks] for array in read_arrays(saved, 320)]
    assert sizes[0] == [3]
    assert len(sizes[1]) > 1


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60)
def test_every_cut_is_noticed(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    np.savez_compressed(path, np.arange(300), np.arange(5))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match=r"not a whole \.npz"):
        read(path)


@pytest.mark.slow
@given(place=st.integers(0), value=st.integers(1, 255))
@settings(max_examples=200)
def test_a_changed_byte_is_noticed_or_changes_nothing(tmp_path_factory, place, value):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    np.savez_compressed(path, np.arange(300), np.arange(5))
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= value
    path.write_bytes(content)
    try:
        found = read(path)
    except FormatError:
        return
    assert [array.tolist() for array in found] in ([list(range(300)), list(range(5))], [list(range(300))])


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((2, 3), int), r"shape \(2, 3\); expected one row of integers"),
        (np.array(5), r"shape \(\); expected one row"),
        (np.array([1.0]), "float64"),
        (np.array([True]), "bool"),
        (np.array(["text"]), "<U4"),
        (np.array([-1]), "holds the id -1"),
        (np.array([0, 320]), "holds the id 320; the vocabulary has only 320"),
        (np.array([2**63], np.uint64), "holds the id"),
    ],
    ids=str,
)
def test_what_is_no_row_of_ids_is_refused(tmp_path, array, problem):
    np.savez(tmp_path / "a.npz", array)
    with pytest.raises(FormatError, match=problem):
        read(tmp_path / "a.npz")


def test_a_pickle_is_never_opened(tmp_path):
    np.savez(tmp_path / "a.npz", np.array([{}], dtype=object))
    with pytest.raises(FormatError, match="object"):
        read(tmp_path / "a.npz")


def header_of(shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": shape})
    return header.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (header_of((2**40,)) + bytes(16), "promises 1,099,511,627,776 ids of int64, but holds 16 bytes"),
        (header_of((1,)) + bytes(16), "promises 1 ids of int64, but holds 16 bytes"),
        (header_of((-1,)) + bytes(16), "promises -1 ids|not a whole"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "version"),
        (b"text", "not a whole"),
        (b"", "not a whole"),
    ],
)
def test_a_member_that_lies_is_refused(tmp_path, content, problem):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("arr_0.npy", content)
    with pytest.raises(FormatError, match=problem):
        read(tmp_path / "a.npz")


def test_an_npz_without_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz")
    with pytest.raises(FormatError, match="no array"):
        read(tmp_path / "a.npz")
