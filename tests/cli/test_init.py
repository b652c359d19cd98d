import pytest
from safetensors.numpy import load_file


def test_a_new_model_is_made_and_described(gpt2, here, model):
    status, out, _ = gpt2("init", "--size", "tiny", "--tokenizer", model, "-o", "fresh")
    count = sum(tensor.size for tensor in load_file("fresh/model.safetensors").values())
    assert status == 0
    assert out == f"fresh: {count:,} parameters, 2 layers, 64 wide, 2 heads, window 128, 320 tokens\n"


def test_a_new_model_can_write_at_once(gpt2, model):
    gpt2("init", "--size", "tiny", "--tokenizer", model, "--output", "fresh")
    status, out, _ = gpt2("generate", "--model", "fresh", "--max-new-tokens", "3", "--engine", "reference")
    assert (status, out.endswith("\n")) == (0, True)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_no_generator_takes_is_refused(gpt2, here, model, seed):
    """numpy's Philox takes keys of 64 bits."""
    status, out, err = gpt2("init", "--size", "tiny", "--tokenizer", model, "-o", "fresh", "--seed", seed)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "seed" in err
    assert not (here / "fresh" / "model.safetensors").exists()


def test_an_unknown_size_is_one_line_and_status_1(gpt2, model):
    status, out, err = gpt2("init", "--size", "huge", "--tokenizer", model, "-o", "fresh")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("gpt2: no size 'huge'; there are tiny, ")
