"""Damaged torch files: the zip as it lies, the pickle inside a whole zip, and the stream of before torch 1.6."""

import io
import shutil
import warnings
import zipfile

import pytest

from gpt2kit.formats import torch_bin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:invalid escape sequence"),
]  # Python's own pickletools says so


@pytest.fixture
def attack(tmp_path, survives):
    """attack(directory, name, seed, wrapped): wounds the file `name` of a model and reads all of what is left."""

    def at(directory, name, seed, original=None, wrapped=lambda content: content):
        shutil.copy(directory / "config.json", tmp_path)
        place = tmp_path / name

        def open_and_read(content):
            place.write_bytes(wrapped(content))
            for tensor in torch_bin.read(place).tensors.values():
                tensor.read().sum(dtype="float64")

        outcomes = survives(original or (directory / name).read_bytes(), open_and_read, seed)
        assert {"accepted", "FormatError"} <= set(outcomes)

    with warnings.catch_warnings(action="ignore"):  # numbers of chance overflow, and differ from the head's
        yield at


def test_a_damaged_zip(golden, attack):
    attack(golden / "hf-bin", "pytorch_model.bin", seed=0)


def test_a_damaged_pickle_in_a_whole_zip(golden, attack):
    with zipfile.ZipFile(golden / "hf-bin" / "pytorch_model.bin") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    pickle = "pytorch_model/data.pkl"

    def zipped(content):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, kept in entries.items():
                archive.writestr(name, content if name == pickle else kept)
        return file.getvalue()

    attack(golden / "hf-bin", "pytorch_model.bin", 10**6, original=entries[pickle], wrapped=zipped)


def test_a_damaged_stream(golden, attack):
    attack(golden / "hf-2019-bin", "gpt2-pytorch_model.bin", seed=2 * 10**6)


def test_the_damaged_beginning_of_a_stream(golden, attack):
    whole = (golden / "hf-2019-bin" / "gpt2-pytorch_model.bin").read_bytes()
    pickles = whole[:6400]  # all but the numbers

    attack(
        golden / "hf-2019-bin",
        "gpt2-pytorch_model.bin",
        3 * 10**6,
        original=pickles,
        wrapped=lambda content: content + whole[len(pickles) :],
    )
