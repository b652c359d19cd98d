import json
from dataclasses import replace

import numpy as np
import pytest

from gpt2kit.checkpoint import CHUNK, Checkpoint, LazyTensor
from gpt2kit.config.model import ModelConfig
from gpt2kit.jobs.compare import compare, compare_tensors
from gpt2kit.resolve import open_checkpoint

CONFIG = ModelConfig(vocab_size=3, window=4, width=4, layers=1, heads=1, inner_width=16)


def tensor(values, dtype="float32"):
    values = np.asarray(values)
    return LazyTensor("any", dtype, values.shape, lambda: values)


def floats(*values):
    return tensor(np.array(values, np.float32))


def checkpoint_of(tensors, config=CONFIG, tokenizer_files=None):
    return Checkpoint(config, tensors, tokenizer_files or {}, "here")


# --- one tensor ---


@pytest.mark.parametrize(
    ("a", "b", "bit_equal", "largest"),
    [
        (floats(1, 2), floats(1, 2), True, 0),
        (floats(1, 2, -3), floats(1, 2.5, -5), False, 2),
        (floats(0.0), floats(-0.0), False, 0),
        (floats(1, np.nan), floats(1, np.nan), True, 0),
        (floats(1), floats(np.nan), False, np.inf),
        (floats(np.inf), floats(np.inf), True, 0),
        (floats(np.inf), floats(-np.inf), False, np.inf),
        (floats(1, -2), tensor(np.array([1, -2], np.float16), "float16"), False, 0),
        (floats(1, -2), tensor(np.array([0x3F80, 0xC000], np.uint16), "bfloat16"), False, 0),
        (floats(0.1), tensor(np.array([0.1]), "float64"), False, float(np.float32(0.1)) - 0.1),
    ],
)
def test_two_tensors(a, b, bit_equal, largest):
    difference = compare_tensors(a, b)
    assert (difference.bit_equal, difference.largest) == (bit_equal, pytest.approx(largest))


@pytest.mark.parametrize("place", [0, CHUNK - 1, CHUNK, 2 * CHUNK])
def test_one_value_is_found_wherever_it_is(place):
    values = np.zeros(2 * CHUNK + 1, np.float32)
    other = values.copy()
    other[place] = 0.5
    assert compare_tensors(tensor(values), tensor(other)).largest == 0.5


def test_values_that_lie_apart_are_compared_too():
    apart = np.arange(24, dtype=np.float32).reshape(8, 3)[:, 1]
    assert compare_tensors(tensor(apart), tensor(apart.copy())).bit_equal


# --- two checkpoints ---


def test_a_checkpoint_does_not_differ_from_itself(model):
    difference = compare(open_checkpoint(model), open_checkpoint(model))
    assert (difference.nothing, difference.bit_equal, difference.largest) == (True, True, 0)
    assert len(difference.tensors) == 40


def test_what_only_one_has_is_named():
    one = floats(1)
    difference = compare(checkpoint_of({"a": one, "b": one}), checkpoint_of({"b": one, "c": one}))
    assert (difference.only_a, difference.only_b, difference.bit_equal) == (("a",), ("c",), False)


def test_tensors_of_other_shapes_are_named_and_not_read():
    difference = compare(checkpoint_of({"a": floats(1, 2)}), checkpoint_of({"a": floats(1)}))
    assert (difference.reshaped, difference.tensors) == ({"a": ((2,), (1,))}, ())
    assert not difference.bit_equal


def test_settings_that_differ_are_named():
    difference = compare(checkpoint_of({}), checkpoint_of({}, replace(CONFIG, activation="relu", heads=2)))
    assert difference.settings == {"heads": (1, 2), "activation": ("gelu_tanh", "relu")}
    assert not difference.nothing


def test_a_vocabulary_in_other_files_is_the_same(golden, shared):
    hub, single = open_checkpoint(golden / "hf-safetensors"), open_checkpoint(golden / "hf-v5")
    assert set(hub.tokenizer_files) != set(single.tokenizer_files)
    assert compare(hub, single).vocabulary is None


@pytest.mark.slow
def test_another_vocabulary_is_told(golden, shared):
    ours, theirs = open_checkpoint(golden / "hf-safetensors"), open_checkpoint(shared / "fixtures" / "openai-fullvocab")
    assert compare(ours, theirs).vocabulary.startswith("320 and 50,257 tokens; ")


def test_special_tokens_of_one_alone_are_told(golden):
    whole = open_checkpoint(golden / "hf-safetensors")
    added = json.dumps({"Ġthe": json.loads(whole.tokenizer_files["vocab.json"])["Ġthe"]}).encode()
    other = replace(whole, tokenizer_files={**whole.tokenizer_files, "added_tokens.json": added})
    assert compare(whole, other).vocabulary == "the same tokens, others of them special"


def test_a_vocabulary_that_one_lacks_is_told(golden):
    whole = open_checkpoint(golden / "hf-v5")
    assert compare(checkpoint_of({}), whole).vocabulary == f"only in {whole.origin}"


def test_progress_counts_bytes(model):
    reports = []
    compare(open_checkpoint(model), open_checkpoint(model), reports.append)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert {report.total for report in reports} == {done[-1]} == {74_280 * 4}
