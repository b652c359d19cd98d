"""Damaged GGUF files: bits of settings, places and blocks flipped, parts cut out and doubled."""

import warnings

import pytest

from gpt2kit.formats import gguf
from gpt2kit.tokenizer.open import open_tokenizer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("type", "seed"), [("f32", 0), ("q8_0", 10**6)])
def test_a_damaged_file(shared, tmp_path, survives, type, seed):
    place = tmp_path / "model.gguf"

    def open_and_read(content):
        place.write_bytes(content)
        with warnings.catch_warnings(action="ignore"):  # another kind of tokenizer, sums of NaN
            checkpoint = gguf.read(place)
            for tensor in checkpoint.tensors.values():
                tensor.read().sum(dtype="float64")
        if checkpoint.tokenizer_files:
            open_tokenizer(checkpoint.tokenizer_files, "here").encode("a b")

    original = (shared / "fixtures" / "gguf" / f"small-{type}.gguf").read_bytes()
    outcomes = survives(original, open_and_read, seed)
    assert {"accepted", "FormatError"} <= set(outcomes)
