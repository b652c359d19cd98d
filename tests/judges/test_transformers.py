import numpy as np
import pytest

from gpt2kit.formats import huggingface, torch_bin
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint

pytestmark = pytest.mark.judges
SHARD_BYTES = 60_000
FORMATS = {"safetensors": huggingface, "bin": torch_bin}


def assert_nothing_amiss(answer):
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert answer.more[trouble].tolist() == []


@pytest.mark.parametrize("shard_bytes", [None, SHARD_BYTES], ids=["whole", "sharded"])
@pytest.mark.parametrize("format", FORMATS)
def test_transformers_computes_the_same_with_what_we_write(ask_transformers, model, tmp_path, format, shard_bytes):
    FORMATS[format].write(open_checkpoint(model.directory), tmp_path / "out", silent, shard_bytes=shard_bytes)
    assert (len(list((tmp_path / "out").glob(f"*.{format}"))) > 1) == (shard_bytes is not None)
    answer = ask_transformers(tmp_path / "out", model)
    model.agrees(answer)
    assert_nothing_amiss(answer)


@pytest.mark.parametrize("shard_bytes", [None, SHARD_BYTES], ids=["whole", "sharded"])
def test_transformers_of_2024_computes_the_same_with_our_bin(ask, model, tmp_path, shard_bytes):
    torch_bin.write(open_checkpoint(model.directory), tmp_path / "out", silent, shard_bytes=shard_bytes)
    answer = ask("torch_model.py", tmp_path / "out", model)
    model.agrees(answer)
    assert_nothing_amiss(answer)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("format", FORMATS)
def test_transformers_rounds_as_we_do(ask_transformers, transformers, wide, tmp_path, format, dtype):
    import torch

    FORMATS[format].write(open_checkpoint(wide.directory).stored_as(dtype), tmp_path / "ours", silent)
    rounded = transformers.GPT2LMHeadModel.from_pretrained(wide.directory).to(getattr(torch, dtype))
    rounded.save_pretrained(tmp_path / "theirs")
    ours, theirs = ask_transformers(tmp_path / "ours", wide), ask_transformers(tmp_path / "theirs", wide)
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    assert_nothing_amiss(ours)
