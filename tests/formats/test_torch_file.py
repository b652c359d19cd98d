import os
import pickle
import re
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.torch_file import is_torch_file, named_tensors, read_object, write_object

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.bin"


@pytest.fixture(params=["zip", "stream"])
def save(request, file):
    """Saves as torch does now, and as it did before 1.6; returns the file."""

    def to_file(thing, **how):
        torch.save(thing, file, _use_new_zipfile_serialization=request.param == "zip", **how)
        return file

    return to_file


def of_torch(tensor):
    """The values in numpy, bfloat16 as bits."""
    return (tensor.view(torch.int16).numpy().view(np.uint16)) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def read(file):
    return {name: tensor.read() for name, tensor in named_tensors(read_object(file), file).items()}


def in_memory(values, dtype=None):
    return LazyTensor("a", dtype or str(values.dtype), values.shape, lambda: values)


# --- reading what torch wrote ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_torch_saves_is_read(save, dtype):
    values = torch.tensor([[0, 1, 2], [3, 100, 1]]).to(getattr(torch, dtype))
    tensor = named_tensors(read_object(file := save({"a": values})), file)["a"]
    assert (tensor.name, tensor.dtype, tensor.shape) == ("a", dtype, (2, 3))
    np.testing.assert_array_equal(tensor.read(), of_torch(values))
    np.testing.assert_array_equal(tensor.read_float32(), values.float().numpy())


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 1), (2, 3, 4, 5)], ids=str)
def test_every_shape_is_read(save, shape):
    values = torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)
    found = read(save({"a": values}))["a"]
    assert (found.shape, found.tolist()) == (shape, values.tolist())


VIEWS = {
    "transposed": lambda a: a.T,
    "expanded": lambda a: a[:, :1].expand(4, 100),
    "every other column": lambda a: a[:, 1::2],
    "a row": lambda a: a[2],
    "one number": lambda a: a[3, 5],
    "overlapping windows": lambda a: a.flatten().unfold(0, 7, 2),
    "permuted": lambda a: a.reshape(2, 2, 6).permute(2, 0, 1),
}


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_read(save, view):
    values = VIEWS[view](torch.arange(24, dtype=torch.float32).reshape(4, 6))
    np.testing.assert_array_equal(read(save({"a": values}))["a"], values.numpy())


def test_views_on_one_storage_are_told_apart(save):
    values = torch.arange(10)
    found = read(save({"a": values, "b": values[5:], "c": values}))
    assert [found[name].tolist() for name in "abc"] == [values.tolist(), values[5:].tolist(), values.tolist()]


def test_the_values_cannot_be_written_to(save):
    assert not read(save({"a": torch.ones(3)}))["a"].flags.writeable


def test_the_values_are_mapped_not_copied(file):
    torch.save({"a": torch.ones(3)}, file)
    assert isinstance(read(file)["a"], np.memmap)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(save, protocol):
    assert read(save({"a": torch.ones(2)}, pickle_protocol=protocol))["a"].tolist() == [1, 1]


def test_parameters_and_attributes_of_a_state_are_read(save):
    layer = torch.nn.Linear(2, 3)
    state = layer.state_dict(keep_vars=True)
    assert hasattr(state, "_metadata")
    assert isinstance(state["weight"], torch.nn.Parameter)
    np.testing.assert_array_equal(read(save(state))["weight"], layer.weight.detach().numpy())


def test_an_optimizer_with_its_state_is_read(save):
    weight = torch.nn.Parameter(torch.arange(6.0))
    optimizer = torch.optim.AdamW([weight], lr=0.1, betas=(0.8, 0.9))
    weight.square().sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    found = read_object(save({"optimizer": state, "step": 7, "best": torch.tensor(1.5), "dtype": torch.float16}))
    assert found["step"] == 7
    assert found["optimizer"]["param_groups"] == state["param_groups"]
    for name, expected in state["state"][0].items():
        np.testing.assert_array_equal(found["optimizer"]["state"][0][name].read(), expected.numpy())


def test_of_two_objects_in_one_stream_the_first_is_read(file):
    with file.open("wb") as both:
        torch.save({"a": torch.ones(2)}, both, _use_new_zipfile_serialization=False)
        torch.save({"b": torch.ones(2)}, both, _use_new_zipfile_serialization=False)
    assert list(torch.load(file, weights_only=True)) == list(read(file)) == ["a"]


def test_a_torch_file_is_known_by_its_first_bytes(save):
    assert is_torch_file(save({"a": torch.ones(2)}))


# --- writing for torch ---


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "read"])
@pytest.mark.parametrize("weights_only", [True, False], ids=["weights only", "any object"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_reads_what_we_write(file, dtype, weights_only, mapped):
    values = of_torch(torch.tensor([[0, 1, 2], [3, 100, 1]]).to(getattr(torch, dtype)))
    write_object({"a": in_memory(values, dtype)}, file)
    found = torch.load(file, weights_only=weights_only, mmap=mapped)["a"]
    assert found.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(of_torch(found), values)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (300, 1, 2)], ids=str)
def test_torch_reads_every_shape_that_we_write(file, shape):
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    write_object({"a": in_memory(values)}, file)
    found = torch.load(file, weights_only=True)["a"]
    assert (tuple(found.shape), found.tolist()) == (shape, values.tolist())


def test_torch_reads_the_lists_that_we_write(file):
    value = {"groups": [{"params": [0, 1], "betas": [0.9, 0.95]}, {"params": []}], "state": {}}
    write_object(value, file)
    assert torch.load(file, weights_only=True) == value


def test_tensors_that_are_the_same_share_their_storage(file):
    first, other = in_memory(np.ones(1000, np.float32)), in_memory(np.ones(1000, np.float32))
    write_object({"a": first, "b": replace(first, name="b"), "c": other}, file)
    found = torch.load(file, weights_only=True)
    assert found["a"].data_ptr() == found["b"].data_ptr() != found["c"].data_ptr()
    assert 8000 < file.stat().st_size < 10_000


def test_what_is_transposed_is_written_in_its_order(file):
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_object({"a": in_memory(values)}, file)
    assert torch.load(file, weights_only=True)["a"].tolist() == values.tolist()


def test_storages_are_aligned_and_their_checksums_hold(file):
    write_object({name: in_memory(np.arange(size)) for size, name in enumerate("abcdefgh")}, file)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
    found = torch.load(file, weights_only=True, mmap=True)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in found.values())


def test_torch_reads_entries_with_large_sizes(file, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)  # as if more than 10 bytes were more than 2 GB
    write_object({"a": in_memory(np.arange(100)), "b": in_memory(np.arange(50))}, file)
    assert torch.load(file, weights_only=True, mmap=True)["b"].tolist() == list(range(50))
    assert read(file)["b"].tolist() == list(range(50))


def test_the_same_tensors_make_the_same_file(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write_object({"x": in_memory(np.arange(100))}, tmp_path / place / "model.bin")
    assert (tmp_path / "a" / "model.bin").read_bytes() == (tmp_path / "b" / "model.bin").read_bytes()


def test_progress_is_told_in_bytes(file):
    reports = []
    write_object({"a": in_memory(np.zeros(10)), "b": in_memory(np.zeros(5))}, file, reports.append)
    assert [(report.done, report.total, report.unit) for report in reports] == [(80, 120, "byte"), (120, 120, "byte")]


@pytest.mark.slow
def test_one_tensor_is_in_memory_at_a_time(file):
    size = 2**24
    tensors = {
        name: LazyTensor(name, "uint8", (size,), lambda value=value: np.full(size, value, np.uint8))
        for value, name in enumerate("abcdefgh")
    }
    tracemalloc.start()
    write_object(tensors, file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * size


def test_a_full_disk_leaves_the_file_before(file):
    resource = pytest.importorskip("resource")  # not on Windows
    file.write_bytes(b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_object({"a": in_memory(np.zeros(100)), "b": in_memory(np.zeros(10_000))}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (file.read_bytes(), os.listdir(file.parent)) == (b"before", [file.name])


# --- files that are something else, or damaged ---


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_is_told(save, share):
    whole = save({"a": torch.ones(3000), "b": torch.ones(1000)}).read_bytes()
    (file := save({})).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(TruncatedFile):
        read_object(file)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_program_of_torch_jit_is_refused(file):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), file)
    assert is_torch_file(file)
    with pytest.raises(FormatError, match=r"a program of torch.jit.save; save its state_dict\(\)"):
        read_object(file)


def test_a_whole_model_is_refused(save):
    with pytest.raises(FormatError, match=r"names 'torch.nn.modules.linear.Linear', .* save its state_dict\(\) alone"):
        read_object(save(torch.nn.Linear(2, 3)))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (pickle.dumps({"a": 1}), "a bare pickle"),
        (bytes(257) + b"ustar" + bytes(300), "a tar file of torch before 0.1.10"),
        (b"version https://git-lfs.github.com/spec/v1\n", "fetch it with: git lfs pull"),
        (b"<!DOCTYPE html>", "it starts with b'<!DOCTYPE html>'"),
    ],
)
def test_other_files_are_called_by_name(file, content, problem):
    file.write_bytes(content)
    assert not is_torch_file(file)
    with pytest.raises(FormatError, match=problem):
        read_object(file)


def zipped(file, entries):
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def entries_of(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model/byteorder": b"big"}, "written on a big-endian machine"),
        ({"model/data/0": b"123"}, "the storage '0' has 3 bytes, expected 8"),
        ({"model/data/0": None}, "the storage '0' is missing"),
        ({"model/data.pkl": None}, "with 0 plain entries NAME/data.pkl"),
        ({"other/data.pkl": b"N."}, "with 2 plain entries NAME/data.pkl"),
        ({"model/data.pkl": bytes(2**24 + 1)}, "a pickle of 16777217 bytes"),
    ],
)
def test_entries_that_are_not_as_torch_writes_them_are_refused(file, change, problem):
    torch.save({"a": torch.ones(2)}, file)
    zipped(file, {name: content for name, content in (entries_of(file) | change).items() if content is not None})
    with pytest.raises(FormatError, match=problem):
        read_object(file)


def test_an_archive_of_any_name_is_read(file):
    torch.save({"a": torch.ones(2)}, file)
    zipped(file, {name.replace("model/", "any thing/"): content for name, content in entries_of(file).items()})
    assert read(file)["a"].tolist() == [1, 1]


PROTOCOL, STORAGE = re.escape(pickle.dumps(1001, 2)), re.escape(struct.pack("<Q2f", 2, 1, 1))
KEYS = rb"\x80\x02\]q\x00X....\d+q\x01a\."


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (STORAGE, b"\xff" * 16, "goes on to byte"),
        (STORAGE, struct.pack("<Qf", 1, 1), "has 4 bytes, expected 8"),
        (STORAGE, b"1234", "ends before the storage"),
        (PROTOCOL, pickle.dumps(1002, 2), "starts with other numbers than torch.save writes"),
        (KEYS, pickle.dumps(["1"], 2), "one that no tensor uses"),
        (KEYS, pickle.dumps("1", 2), "one that no tensor uses"),
        (KEYS, pickle.dumps([], 2), "the storage .* is missing, or compressed"),
    ],
)
def test_a_stream_that_is_not_as_torch_writes_it_is_refused(file, old, new, problem):
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=False)
    changed, times = re.subn(old, lambda _: new, file.read_bytes(), flags=re.DOTALL)
    assert times == 1
    file.write_bytes(changed)
    with pytest.raises(FormatError, match=problem):
        read_object(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "problem"), [(b"\xff", "not a pickle"), (b"X\0\0\0\2", "a pickle of more than 16777216 bytes")]
)
def test_a_damaged_pickle_before_many_numbers_is_told(file, damage, problem):
    torch.save({"a": torch.ones(10_000_000)}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    at = content.index(b"X\x01\x00\x00\x00a")
    file.write_bytes(content[:at] + damage + content[at + len(damage) :])
    with pytest.raises(FormatError, match=problem):
        read_object(file)


@pytest.mark.parametrize(
    ("thing", "problem"),
    [
        ([torch.ones(2)], "holds a list; expected a dict"),
        ({"a": 1}, "holds a int as 'a'; expected a named tensor"),
        ({1: torch.ones(2)}, "holds a LazyTensor as 1"),
        ({"a\x1b": torch.ones(2)}, r"holds a LazyTensor as 'a\\x1b'"),
        (OrderedDict(a={"b": torch.ones(2)}), "holds a dict as 'a'"),
    ],
)
def test_what_is_not_a_dict_of_tensors_is_refused(save, thing, problem):
    file = save(thing)
    with pytest.raises(FormatError, match=problem):
        named_tensors(read_object(file), file)
