"""The file of packed weights beside a model: used when it fits, made anew when it does not, missed by nobody."""

import os
import shutil

import numpy as np
import pytest

from gpt2kit.formats import huggingface
from gpt2kit.generate import packed
from gpt2kit.generate.engine import Row
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.generate.packed import packed_weights


@pytest.fixture
def model(tmp_path, golden, monkeypatch):
    """A directory of a model that is worth keeping packed."""
    monkeypatch.setattr(packed, "WORTH_KEEPING", 0)
    return shutil.copytree(golden / "hf-safetensors", tmp_path / "model")


def weights_of(model, precision="int8"):
    return packed_weights(huggingface.read(model), precision, 2)


def same(found, expected):
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)


def is_mapped(weights):
    return not any(array.flags.writeable for array in weights.values())


def test_the_second_time_weights_are_mapped_from_the_file(model):
    first, second = weights_of(model), weights_of(model)
    assert same(second, first)
    assert not is_mapped(first)
    assert is_mapped(second)
    assert [file.name for file in model.iterdir() if file.name.startswith(".")] == [".packed-int8"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_mapped_weights_give_the_same_logits(model, precision):
    engines = [NativeEngine(huggingface.read(model), 1, precision, 2) for _ in range(2)]
    first, second = (engine.step([Row(0, [1, 2, 3], "all")]) for engine in engines)
    np.testing.assert_array_equal(first, second)


def test_precisions_are_kept_side_by_side(model):
    for precision in ("int8", "bf16"):
        weights_of(model, precision)
    assert is_mapped(weights_of(model, "int8"))
    assert is_mapped(weights_of(model, "bf16"))


def test_a_model_that_was_replaced_is_packed_again(model, golden):
    before = weights_of(model)
    shutil.copy(golden / "hf-v5" / "model.safetensors", model)
    shutil.copy(golden / "hf-v5" / "config.json", model)
    after = weights_of(model)
    assert not is_mapped(after)
    assert not same(after, before)
    assert same(weights_of(model), after)


def test_a_model_that_was_only_touched_is_not(model):
    weights_of(model)
    os.utime(model / "model.safetensors", (1, 1))
    before = (model / ".packed-int8").stat()
    assert is_mapped(weights_of(model))
    noted = (model / ".packed-int8").stat()
    assert noted.st_ino != before.st_ino  # with the new time, so that nothing is read for certainty again
    assert is_mapped(weights_of(model))
    assert (model / ".packed-int8").stat().st_ino == noted.st_ino


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:10],
        lambda content: b"",
        lambda content: content + bytes(4096),
        lambda content: b"x" + content[1:],
        lambda content: content[:16] + b"\xff" * 8 + content[24:],
        lambda content: content[:24] + b"[" + content[25:],
        lambda content: content.replace(b'"bytes"', b'"bites"'),
        lambda content: content.replace(b'"uint8"', b'"uint9"'),
    ],
)
def test_a_torn_file_is_made_anew(model, damage):
    expected = weights_of(model)
    file = model / ".packed-int8"
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert same(weights_of(model), expected)
    assert file.read_bytes() == whole


def test_where_nothing_can_be_written_nothing_is_kept_and_nothing_fails(model):
    expected = weights_of(model)
    (model / ".packed-int8").unlink()
    (model / "..packed-int8.partial").mkdir()  # in the way of the new file, for the administrator too
    assert same(weights_of(model), expected)
    assert not (model / ".packed-int8").exists()


def test_small_models_are_not_kept(tmp_path, golden):
    model = shutil.copytree(golden / "hf-safetensors", tmp_path / "model")
    weights_of(model)
    assert not any(file.name.startswith(".packed") for file in model.iterdir())
