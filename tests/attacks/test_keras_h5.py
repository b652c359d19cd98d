"""Damaged tf_model.h5. libhdf5 works in a process for each, forked from one that has it loaded: 130 ms become 7."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from gpt2kit.errors import Gpt2kitError
from gpt2kit.formats import huggingface, keras_h5, keras_names
from gpt2kit.formats.h5_file import tensors_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
MOST_BYTES = 1_000_000_000  # that reading a file may take
# For each line "file<tab>answer" on its input, what h5_child does as a program, from its limits to its end.
FORKS = """
import os, sys, h5py
from gpt2kit.formats import h5_child

for line in sys.stdin:
    path, answer = line.rstrip("\\n").split("\\t")
    process = os.fork()
    if process == 0:
        status = 1
        try:
            sys.stdout = open(answer, "w", encoding="utf-8")
            h5_child.main(path)
            sys.stdout.close()
            status = 0
        finally:
            os._exit(status)
    _, status, used = os.wait4(process, 0)
    print(os.waitstatus_to_exitcode(status), used.ru_maxrss, flush=True)
"""


@pytest.fixture(scope="session")
def fuzz_count(fuzz_count):
    """Two attacks share it: a process each takes its time."""
    return fuzz_count // 2


@pytest.fixture
def directory(tmp_path, golden):
    (tmp_path / "config.json").write_bytes((golden / "hf-tf-h5" / "config.json").read_bytes())
    return tmp_path


@pytest.fixture(scope="session")
def structure(tmp_path_factory, golden):
    """The file that Keras wrote, less most of its numbers: nearly every wound hits what libhdf5 reads."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path_factory.mktemp("h5") / "small.h5"
    with h5py.File(golden / "hf-tf-h5" / "tf_model.h5") as whole, h5py.File(path, "w") as small:

        def copy(name, found):
            if isinstance(found, h5py.Dataset) and "h_._0" in name:
                small.create_dataset(name, data=found[..., :2])
            elif not isinstance(found, h5py.Dataset):
                small.require_group(name)

        whole.visititems(copy)
        small["transformer"].attrs["weight_names"] = list(whole["transformer"].attrs["weight_names"])
    return path.read_bytes()


@pytest.fixture(scope="session")
def forks():
    pytest.importorskip("h5py")
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as program:
        yield program
        program.stdin.close()


@pytest.fixture
def open_and_read(directory, forks, capsys):
    """Reads a file with these bytes as `keras_h5.read` does, but for the fork; tells how the forks ended."""
    path, answer = directory / "tf_model.h5", directory / "answer"
    ends, peak_bytes = Counter(), 0

    def opened(content):
        nonlocal peak_bytes
        path.write_bytes(content)
        forks.stdin.write(f"{path}\t{answer}\n")
        forks.stdin.flush()
        status, kilobytes = map(int, forks.stdout.readline().split())
        ends[status] += 1
        peak_bytes = max(peak_bytes, kilobytes * 1024)
        assert peak_bytes < MOST_BYTES
        datasets = tensors_of(path, status, answer.read_bytes())
        for tensor in datasets.values():
            np.array(tensor.read())
        huggingface.checkpoint_of(keras_names.canonical(datasets, path), directory, path, None)

    yield opened
    if ends.total() > 1000:
        with capsys.disabled():
            print(f"forks by status: {dict(ends)}; peak {peak_bytes / 1e6:.0f} MB")


def test_damage_anywhere_is_read_or_refused(survives, open_and_read, golden):
    outcomes = survives((golden / "hf-tf-h5" / "tf_model.h5").read_bytes(), open_and_read)
    assert outcomes["accepted"] > 0
    assert outcomes["FormatError"] > 0


def test_damaged_structure_is_read_or_refused(survives, open_and_read, structure):
    assert survives(structure, open_and_read, seed=10_000_000)["FormatError"] > 0


def test_damage_through_the_real_program_is_refused(directory, mutations, structure):
    for number, content in mutations(structure, 10, 20_000_000):
        (directory / "tf_model.h5").write_bytes(content)
        with pytest.raises(Gpt2kitError):
            print(f"seed {number}", keras_h5.read(directory))
