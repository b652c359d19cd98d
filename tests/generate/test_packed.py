"""The files of packed weights and words beside a model: used when they fit, made anew when not, missed by nobody."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.errors import ConfigError
from gpt2kit.formats import huggingface
from gpt2kit.formats.peft_adapter import with_adapter
from gpt2kit.generate import packed
from gpt2kit.generate.engine import Row
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.generate.packed import packed_tokenizer, packed_weights
from gpt2kit.tokenizer.flat_vocabulary import FlatVocabulary
from gpt2kit.tokenizer.open import open_tokenizer
from gpt2kit.tokenizer.vocabulary import read_vocabulary


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


def test_a_single_file_has_its_own_beside_it(golden, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "WORTH_KEEPING", 0)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(golden / "hf-safetensors" / name, tmp_path)
    file = tmp_path / "model.safetensors"
    first, second = weights_of(file), weights_of(file)
    assert same(second, first)
    assert is_mapped(second)
    assert sorted(file.name for file in tmp_path.glob(".*")) == [".model.safetensors.packed-int8"]
    (tmp_path / "something else").touch()
    assert is_mapped(weights_of(file))
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_head": 2}), "utf-8")
    assert not is_mapped(weights_of(file))


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


DAMAGES = pytest.mark.parametrize(
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


@DAMAGES
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


@pytest.mark.parametrize("value", [np.nan, np.inf, -2e6])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_what_has_no_whole_number_is_refused(golden, value, precision):
    checkpoint = huggingface.read(golden / "hf-safetensors")
    tensor = checkpoint.tensors["h.1.mlp.c_fc.weight"]
    values = np.array(tensor.load())
    values[3, 5] = value
    tensors = {**checkpoint.tensors, tensor.name: dataclasses.replace(tensor, load=lambda: values)}
    with pytest.raises(ConfigError, match=rf"h\.1\.mlp\.c_fc\.weight holds NaN .* {precision} has no place"):
        NativeEngine(dataclasses.replace(checkpoint, tensors=tensors), 1, precision)


def test_small_models_are_not_kept(tmp_path, golden):
    model = shutil.copytree(golden / "hf-safetensors", tmp_path / "model")
    weights_of(model)
    assert not any(file.name.startswith(".packed") for file in model.iterdir())


def test_the_packed_weights_of_a_base_are_not_those_of_an_adapted_model(model, golden):
    """Nor are those of a directory that happens to have the name under which an adapted model opens again."""
    plain = weights_of(model)
    adapted = with_adapter(huggingface.read(model), golden / "peft" / "c_attn")
    namesake = shutil.copytree(model, Path(adapted.origin))
    weights_of(namesake)
    found = packed_weights(adapted, "int8", 2)
    assert not same(found, plain)
    assert not is_mapped(found)
    assert is_mapped(weights_of(model))
    assert is_mapped(weights_of(namesake))


# --- the tokenizer ---

TEXTS = ("It was", " a dark\n\nand  stormy night", "Übergröße 床前明月光", "<|endoftext|>", "", "\0\x7f")


@pytest.fixture
def no_parser(monkeypatch):
    """Whoever reads vocabulary files now fails."""

    def forbid():
        monkeypatch.setattr(packed, "read_vocabulary", None)

    return forbid


def tokenizer_of(model):
    return packed_tokenizer(huggingface.read(model))


def assert_same_tokenizer(found, expected):
    assert (found.sha256, found.end_id, found.vocab_size) == (expected.sha256, expected.end_id, expected.vocab_size)
    assert {id: found.bytes_of(id) for id in found.ids} == {id: expected.bytes_of(id) for id in expected.ids}
    for text in TEXTS:
        for special in (False, True):
            assert found.encode(text, special=special) == expected.encode(text, special=special)


def test_the_second_time_a_vocabulary_is_not_parsed(model, no_parser):
    checkpoint = huggingface.read(model)
    expected = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
    assert_same_tokenizer(tokenizer_of(model), expected)
    no_parser()
    assert_same_tokenizer(tokenizer_of(model), expected)


def test_tokens_beside_the_merges_are_kept_flat(model):
    """Added ones with letters beyond ASCII, a word that no merge makes, and holes between the ids."""
    files = dict(huggingface.read(model).tokenizer_files)
    added = {"<größe>": 400, "<|pad|>": 402}
    files["added_tokens.json"] = json.dumps(added).encode()
    files["vocab.json"] = json.dumps(json.loads(files["vocab.json"]) | {"unmade": 390}).encode()
    vocabulary = read_vocabulary(files, "here")
    flat = FlatVocabulary.of(vocabulary)
    assert flat.mergeable() == vocabulary.mergeable()
    assert flat.bytes_by_id() == vocabulary.bytes_by_id()
    assert {flat.bytes_by_id()[id] for id in (390, 400, 402)} == {b"unmade", "<größe>".encode(), b"<|pad|>"}
    assert flat.special == vocabulary.special


def test_another_vocabulary_is_read_though_the_weights_are_the_same(model):
    before = tokenizer_of(model)
    ids = json.loads((model / "vocab.json").read_text("utf-8"))
    (model / "vocab.json").write_text(json.dumps(ids | {"<|endoftext|>": 500}), "utf-8")
    for file in ("tokenizer.json", "special_tokens_map.json", "tokenizer_config.json"):
        (model / file).unlink(missing_ok=True)
    assert before.end_id == 319
    for _ in range(2):
        assert tokenizer_of(model).end_id == 500


@DAMAGES
def test_a_torn_tokenizer_is_made_anew(model, damage):
    expected = tokenizer_of(model)
    file = model / ".packed-tokenizer"
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert_same_tokenizer(tokenizer_of(model), expected)
    assert file.read_bytes() == whole


def test_a_tokenizer_that_cannot_be_kept_is_read_each_time(model):
    expected = tokenizer_of(model)
    (model / ".packed-tokenizer").unlink()
    (model / "..packed-tokenizer.partial").mkdir()
    assert_same_tokenizer(tokenizer_of(model), expected)
    assert not (model / ".packed-tokenizer").exists()
