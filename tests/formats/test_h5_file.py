import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.errors import FormatError, MissingExtra, TruncatedFile
from gpt2kit.formats import h5_child, h5_file
from gpt2kit.formats.h5_file import open_tensors, tensors_of

pytestmark = pytest.mark.slow  # a process for every file

h5py = pytest.importorskip("h5py")
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.h5"


def refused(path, match):
    with pytest.raises(FormatError, match=match) as caught:
        open_tensors(path)
    assert str(path) in str(caught.value)


# --- reading what h5py wrote ---


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_of_every_float_type_are_read(path, dtype):
    with h5py.File(path, "w") as file:
        file["a/b/c:0"] = VALUES.astype(dtype)
    tensors = open_tensors(path)
    assert list(tensors) == ["a/b/c:0"]
    found = tensors["a/b/c:0"]
    assert (found.dtype, found.shape, found.read().dtype.name) == (dtype, (2, 3), dtype)
    assert found.read().tolist() == VALUES.tolist()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 1), (2, 3, 4, 5)], ids=str)
def test_every_shape_is_read(path, shape):
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    with h5py.File(path, "w") as file:
        file["a"] = values
    found = open_tensors(path)["a"].read()
    assert (found.shape, found.tolist()) == (shape, values.tolist())


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_old_and_new_layouts_are_read(path, libver):
    with h5py.File(path, "w", libver=libver) as file:
        for number in range(50):
            file[f"group {number}/a"] = VALUES + number
    found = {name: tensor.read().tolist() for name, tensor in open_tensors(path).items()}
    assert found == {f"group {number}/a": (VALUES + number).tolist() for number in range(50)}


def test_a_user_block_moves_nothing(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["a"] = VALUES
    with path.open("r+b") as file:
        file.write(b"#!/bin/sh")
    assert open_tensors(path)["a"].read().tolist() == VALUES.tolist()


def test_values_stay_on_disk_and_cannot_be_written(path):
    with h5py.File(path, "w") as file:
        file["a"] = VALUES
    found = open_tensors(path)["a"].read()
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def test_names_beyond_ascii_are_read(path):
    with h5py.File(path, "w") as file:
        file["gr\u00fcn/\u7eff"] = VALUES
    assert list(open_tensors(path)) == ["gr\u00fcn/\u7eff"]


def test_a_path_beyond_ascii_is_read(tmp_path):
    path = tmp_path / "gr\u00fcn \u7eff.h5"
    with h5py.File(path, "w") as file:
        file["a"] = VALUES
    assert open_tensors(path)["a"].read().tolist() == VALUES.tolist()


def test_a_file_open_for_writing_elsewhere_is_read(path):
    with h5py.File(path, "w", libver="earliest") as file:
        file["a"] = VALUES
        file.flush()
        assert open_tensors(path)["a"].read().tolist() == VALUES.tolist()


# --- what no Keras writes ---


def test_a_soft_link_is_refused(path):
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = VALUES, h5py.SoftLink("/a")
    refused(path, r"'b' is a soft link, not followed")


def test_a_link_into_another_file_is_refused(path, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a"] = VALUES
    with h5py.File(path, "w") as file:
        file["inner/b"] = h5py.ExternalLink("secret.h5", "/a")
    refused(path, r"'inner/b' is a link into another file, not followed")


def test_values_kept_in_another_file_are_refused(path, tmp_path):
    (tmp_path / "secret").write_bytes(VALUES.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (2, 3), "f4", external=[(tmp_path / "secret", 0, 24)])
    refused(path, r"'a' keeps its values in another file")


def test_a_virtual_dataset_is_refused(path, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a"] = VALUES
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "a", (2, 3))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("a", layout)
    refused(path, r"'a' keeps its values in another file")


@pytest.mark.parametrize("storage", [{"chunks": (1, 3)}, {"compression": "gzip"}, {"maxshape": (None, 3)}], ids=str)
def test_chunks_and_compression_are_refused_with_a_way_out(path, storage):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=VALUES, **storage)
    refused(path, r"'a' is stored in chunks or compressed; unpack the file with: h5repack -f NONE -l CONTI OLD NEW")


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(2, [("x", "<f4"), ("y", "<i4")]),
        np.zeros(2, "<i4"),
        np.zeros(2, ">f4"),
        np.zeros(2, "<c8"),
        np.zeros(2, "S4"),
        np.array(["a", "b"], h5py.string_dtype()),
    ],
    ids=lambda values: values.dtype.str,
)
def test_other_types_are_refused(path, values):
    with h5py.File(path, "w") as file:
        file["a"] = values
    refused(path, r"'a' does not hold plain numbers of type <f2, <f4, <f8")


def test_a_float_of_another_make_is_refused(path):
    odd = h5py.h5t.IEEE_F32LE.copy()
    odd.set_ebias(100)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"a", odd, h5py.h5s.create_simple((2, 3)))
    refused(path, r"'a' does not hold plain numbers")


def test_values_that_were_never_written_are_refused(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (2, 3), "f4")
    refused(path, r"'a' \[2, 3\] has no values; they were never written")


def test_a_dataset_without_a_shape_is_refused(path):
    with h5py.File(path, "w") as file:
        file["a"] = h5py.Empty("f4")
    refused(path, r"'a' has no shape and no values")


def test_a_named_type_is_refused(path):
    with h5py.File(path, "w") as file:
        file["a"] = np.dtype("f4")
    refused(path, r"'a' is neither a group nor a dataset")


def test_a_group_that_holds_itself_is_refused(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group["a"] = group
    refused(path, r"groups nested more than 16 deep, as in 'a/a/a/a")


def test_long_names_nested_in_themselves_are_refused(path):
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("a" * 900)
        for name in ("a" * 900, "b" * 900):
            group[name] = group
    refused(path, r"a path of more than 1000 characters, 'aaaaa")


def test_groups_that_hold_each_other_are_refused_soon(path):
    with h5py.File(path, "w") as file:
        groups = [file.create_group(f"{number}") for number in range(20)]
        for group in groups:
            for number, other in enumerate(groups):
                group[f"{number}"] = other
    refused(path, r"groups nested more than 16 deep|more than 10000 groups and datasets")


def test_ten_thousand_groups_are_refused_soon(path):
    with h5py.File(path, "w", libver="latest") as file:
        for number in range(10_001):
            file.create_group(f"{number}")
    begin = time.monotonic()
    refused(path, r"more than 10000 groups and datasets")
    assert time.monotonic() - begin < 10


# --- files that lie, and processes that die ---


def test_a_cut_file_is_refused(path):
    with h5py.File(path, "w") as file:
        file["a"] = np.zeros(100_000, "f4")
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, r"the HDF5 library cannot read it: .*truncated file")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(500), b"text"])
def test_what_is_no_hdf5_is_refused(path, content):
    path.write_bytes(content)
    refused(path, r"the HDF5 library cannot read it: ")


@pytest.mark.parametrize(
    ("claim", "match"),
    [
        (["a", "<f4", [2, 3], 90, 24], r"'a' ends at byte 114, but the file has 100 \(at byte 90\)"),
        (["a", "<f4", [2, 3], 2**64 - 8, 24], r"'a' ends at byte 18446744073709551632, but the file has 100"),
        (["a", "<f4", [2, 3], 10, 20], r"'a' \[2, 3\] takes 24 bytes, but has 20"),
        (["a", "<f4", [2**40, 2**40], 0, 0], r"'a' claims the shape .*; at most 8 dimensions and \d+ elements"),
        (["a", "<f4", [0, 2**62], 0, 0], r"'a' claims the shape"),
        (["a", "<f4", [1] * 32, 0, 4], r"'a' claims the shape"),
    ],
)
def test_every_claim_is_held_against_the_file(path, claim, match):
    path.write_bytes(bytes(100))
    answer = str({"datasets": [claim]}).replace("'", '"').encode()
    with pytest.raises(FormatError, match=match) as caught:
        tensors_of(path, 0, answer)
    assert isinstance(caught.value, TruncatedFile) == ("ends at" in match)


@pytest.mark.parametrize(
    ("status", "match"),
    [
        (-11, r"could not read it: its process was ended by SIGSEGV; the file is damaged"),
        (-1000, r"its process was ended by signal 1000; the file is damaged"),
        (1, r"its process ended with status 1, saying 'MemoryError'"),
    ],
)
def test_how_the_process_died_is_told(path, status, match):
    with pytest.raises(FormatError, match=match):
        tensors_of(path, status, b"", b"Traceback\nMemoryError\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
@pytest.mark.parametrize(
    ("fate", "match"),
    [
        ("import os; os.abort()", r"its process was ended by SIGABRT; the file is damaged"),
        ("import os; os._exit(3)", r"its process ended with status 3"),
        pytest.param("import time; time.sleep(60)", r"did not finish reading it in 2 s", marks=pytest.mark.slow),
    ],
)
def test_a_library_that_crashes_or_hangs_takes_nobody_with_it(path, tmp_path, monkeypatch, fate, match):
    path.write_bytes(h5_file.SIGNATURE)
    (tmp_path / "h5py.py").write_text(fate, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(h5_file, "TIMEOUT_SECONDS", 2)
    refused(path, match)


RUN_LIMITED = "from gpt2kit.formats.h5_child import limit_this_process; limit_this_process();"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_the_process_cannot_take_more_memory_than_it_was_given():
    greedy = f"{RUN_LIMITED} bytes({h5_child.GROWTH_BYTES + 10**8})"  # some of what it had may be free again
    done = subprocess.run([sys.executable, "-c", greedy], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "MemoryError")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
def test_the_process_cannot_work_longer_than_it_was_given():
    done = subprocess.run([sys.executable, "-c", f"{RUN_LIMITED}\nwhile True: pass"], check=False, timeout=60)
    assert done.returncode == -24  # SIGXCPU


def test_without_h5py_the_extra_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"pip install 'gpt2kit\[h5\]'"):
        open_tensors(path)


def test_the_program_takes_less_than_half_a_second_of_work(path):
    with h5py.File(path, "w") as file:
        file["a"] = VALUES
    before = os.times()
    open_tensors(path)
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.5


def test_the_program_takes_nothing_from_the_directory_it_lies_in():
    """Its neighbours would be found as top-level modules."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-P", h5_child.__file__, os.devnull],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {module.stem for module in Path(h5_child.__file__).parent.glob("*.py")}
