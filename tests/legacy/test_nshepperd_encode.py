"""encode.py, held against what the real one wrote."""

import json
import shutil

import numpy as np
import pytest

from gpt2kit.errors import ConfigError, DataError, ModelNotFound
from gpt2kit.legacy.nshepperd import encode

pytestmark = pytest.mark.slow

VOCABULARY = ("encoder.json", "vocab.bpe")


@pytest.fixture
def real(shared, here):
    """The texts that the real program encoded, its files, and OpenAI's vocabulary in models/117M."""
    fixtures = shared / "fixtures" / "nshepperd-encode"
    for name in ("small.txt", "long.txt"):
        shutil.copyfile(fixtures / name, here / name)
    (here / "dir").mkdir()
    place = here / "models" / "117M"
    place.mkdir(parents=True)
    for name in VOCABULARY:
        shutil.copyfile(shared / "data" / name, place / name)
    return fixtures


def arrays(path):
    with np.load(path) as file:
        return {name: (file[name].dtype, file[name].tolist()) for name in file.files}


@pytest.mark.parametrize("name", ["small", "long"])
def test_a_text_becomes_the_very_file(real, name, capsys):
    assert encode([f"{name}.txt", "out.npz"]) == 0
    assert arrays("out.npz") == arrays(real / f"{name}.npz")
    assert capsys.readouterr().out == "Reading files\nWriting out.npz\n"


@pytest.mark.parametrize(("name", "words"), [("dir_default", []), ("dir_combine500", ["--combine", "500"])])
def test_a_directory_becomes_the_very_file_where_the_order_is_the_same(real, here, name, words):
    """There, a directory was read in the order in which the disk had it; here, by name."""
    order = json.loads((real / "runs.json").read_text("utf-8"))["os_walk_order_of_dir"]
    for number, file in enumerate(order):
        shutil.copyfile(real / "dir" / file, here / "dir" / f"{number}.txt")
    encode([*words, "dir", "out.npz"])
    assert arrays("out.npz") == arrays(real / f"{name}.npz")


def test_a_glob_becomes_the_very_file(real, here):
    shutil.copytree(real / "dir", here / "dir", dirs_exist_ok=True)
    encode(["--combine", "100", "dir/f0*", "out.npz"])
    assert arrays("out.npz") == arrays(real / "glob_f0.npz")


def test_the_suffix_is_added_as_numpy_did(real, here, capsys):
    encode(["small.txt", "out"])
    assert (here / "out.npz").is_file()
    assert capsys.readouterr().out.endswith("Writing out.npz\n")


def test_a_file_that_is_there_is_replaced(real, here):
    (here / "out.npz").write_bytes(b"old")
    encode(["small.txt", "out.npz"])
    assert arrays("out.npz") == arrays(real / "small.npz")


def test_another_encoding_is_read(real, here):
    text = "床前明月光，疑是地上霜。\n"
    (here / "utf-8.txt").write_text(text, "utf-8")
    (here / "chinese.txt").write_text(text, "gb18030")
    encode(["utf-8.txt", "expected.npz"])
    encode(["--encoding", "gb18030", "chinese.txt", "out.npz"])
    assert arrays("out.npz") == arrays("expected.npz")


@pytest.mark.parametrize("there", ["124M", "345M", "1558M"])
def test_without_the_small_model_another_one_lends_its_vocabulary(real, here, there, capsys):
    """The first tutorial gets 345M only, and then encodes with the default, 117M."""
    (here / "models" / "117M").rename(here / "models" / there)
    encode(["small.txt", "out.npz"])
    assert arrays("out.npz") == arrays(real / "small.npz")
    lent = f"models/117M is not there; all sizes have one vocabulary, taken from models/{there}\n"
    assert (lent in capsys.readouterr().err) == (there != "124M")


def test_a_model_of_ones_own_lends_no_vocabulary(have):
    have("mine")
    with pytest.raises(ModelNotFound, match=r"models/117M: .*: gpt2 legacy download_model\.py 117M$"):
        encode(["text.txt", "out.npz"])


@pytest.mark.parametrize(
    ("words", "error", "problem"),
    [
        (["nothing.txt", "out.npz"], DataError, r"nothing\.txt: no such file"),
        (["--encoding", "klingon", "text.txt", "out.npz"], ConfigError, "encoding 'klingon' is not known"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_told(have, text, words, error, problem):
    have("117M")
    with pytest.raises(error, match=problem):
        encode(words)
