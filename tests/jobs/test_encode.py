import json
from itertools import chain

import numpy as np
import pytest

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.shards import open_shards
from gpt2kit.errors import ConfigError, DataError, ModelNotFound
from gpt2kit.jobs.encode import encode

RUNS = ["small.npz", "long.npz", "dir_combine500.npz", "dir_default.npz", "glob_f0.npz"]


@pytest.fixture
def old_runs(shared):
    """What nshepperd's encode.py was given, by the name of what it wrote; `dir` in the order of its os.walk."""
    place = shared / "fixtures" / "nshepperd-encode"
    runs = json.loads((place / "runs.json").read_text("utf-8"))
    inputs = {}
    for run in runs["runs"]:
        *options, text = run["args"]
        files = [f"dir/{name}" for name in runs["os_walk_order_of_dir"]] if text == "dir" else [text]
        inputs[run["out"]] = [place / file for file in files], int(options[1]) if options else 50000
    return place, inputs


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_an_npz_is_the_one_that_nshepperds_program_wrote(here, shared, old_runs, name):
    place, inputs = old_runs
    assert sorted(inputs) == sorted(RUNS)
    files, combine = inputs[name]
    encode(files, "ours.npz", model=shared / "data", reading=ReadingConfig(combine=combine))
    with np.load("ours.npz") as ours, np.load(place / name) as theirs:
        assert ours.files == theirs.files
        for array in theirs.files:
            assert ours[array].dtype == theirs[array].dtype == np.int64
            np.testing.assert_array_equal(ours[array], theirs[array])


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_shards_of_the_text_or_of_the_npz_hold_the_arrays_of_nshepperds_program(here, shared, old_runs, name):
    place, inputs = old_runs
    files, combine = inputs[name]
    with np.load(place / name) as theirs:
        arrays = [theirs[array].tolist() for array in theirs.files]
    for texts, out in ((files, "text"), ([place / name], "npz")):
        encode(texts, out, model=shared / "data", reading=ReadingConfig(combine=combine))
        shards = open_shards(here / out)
        assert shards.take(np.arange(shards.total)).tolist() == list(chain.from_iterable(arrays))
        assert shards.ends.tolist() == np.cumsum([len(array) for array in arrays]).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_an_old_npz_can_be_encoded_again(here, shared, old_runs, name):
    place, _ = old_runs
    made = encode([place / name], "out", model=shared / "data")
    with np.load(place / name) as theirs:
        arrays = [theirs[array].tolist() for array in theirs.files]
    shards = open_shards(here / "out")
    assert shards.take(np.arange(shards.total)).tolist() == list(chain.from_iterable(arrays))
    assert made.documents == len(arrays)


def test_arrays_of_an_npz_pass_into_another_as_they_are(here, model):
    np.savez("old.npz", np.array([5, 6], np.int32), np.arange(300_000) % 320)
    (here / "a.txt").write_text("the cat", encoding="utf-8")
    encode(["a.txt", "old.npz"], "new.npz", model=model)
    with np.load("new.npz") as new, np.load("old.npz") as old:
        assert new.files == ["arr_0", "arr_1", "arr_2"]
        assert [new[name].dtype for name in new.files] == [np.int32, np.int64, np.int64]
        for ours, theirs in (("arr_0", "arr_0"), ("arr_1", "arr_1")):
            np.testing.assert_array_equal(new[ours], old[theirs])


def test_an_npz_is_replaced_only_when_asked(here, model):
    (here / "a.txt").write_text("the cat", encoding="utf-8")
    (here / "out.npz").write_bytes(b"old")
    with pytest.raises(ConfigError, match=r"out\.npz: exists already; replace a file with --overwrite"):
        encode(["a.txt"], "out.npz", model=model)
    encode(["a.txt"], "out.npz", model=model, overwrite=True)
    with np.load("out.npz") as new:
        assert new.files == ["arr_0"]
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


def test_what_goes_wrong_leaves_no_npz(here, model):
    (here / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError):
        encode(["a.txt"], "out.npz", model=model)
    assert [path.name for path in here.iterdir()] == ["a.txt"]


def test_figures_tell_what_was_made(here, model):
    (here / "a.jsonl").write_text('{"body": "床前明月光"}\n{"body": "the cat"}', encoding="utf-8")
    made = encode(["a.jsonl"], "out", model=model, reading=ReadingConfig(field="body"))
    assert (made.path.name, made.documents, made.text_bytes, made.new) == ("out", 2, 22, True)
    assert made.tokens == open_shards(here / "out").total
    assert made.bytes_per_token == pytest.approx(22 / made.tokens)
    assert not encode(["a.jsonl"], "out", model=model, reading=ReadingConfig(field="body")).new


def test_any_model_or_vocabulary_will_do(here, model, shared):
    (here / "a.txt").write_text("the cat", encoding="utf-8")
    assert encode(["a.txt"], "one", model=model).tokens > encode(["a.txt"], "two", model=shared / "data").tokens == 3
    with pytest.raises(ModelNotFound):
        encode(["a.txt"], "three", model="nowhere")
