import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


def test_a_model_is_described(gpt2, model):
    stored = load_file(f"{model}/model.safetensors")
    status, out, _ = gpt2("inspect", model)
    assert status == 0
    assert f"parameters   {sum(tensor.size for tensor in stored.values()):,} in {len(stored)} tensors" in out
    assert "stored as    float32" in out
    for name, value in (("vocab_size", 320), ("window", 56), ("width", 40), ("layers", 3), ("heads", 4)):
        assert re.search(rf"^{name} +{value}$", out, re.MULTILINE)


def test_tensors_are_listed_only_where_asked_for(gpt2, model):
    assert "c_attn" not in gpt2("inspect", model)[1]
    assert gpt2("inspect", model, "--tensors")[1].count("attn.c_attn.weight") == 3


def test_a_tensor_is_described_in_a_line(gpt2, model):
    weights = load_file(f"{model}/model.safetensors")["transformer.h.0.mlp.c_fc.weight"].astype(np.float64)
    (line,) = (line for line in gpt2("inspect", model, "--tensors")[1].splitlines() if "h.0.mlp.c_fc.weight" in line)
    assert line.split() == [
        *("h.0.mlp.c_fc.weight", "float32", "40x160"),
        *(f"{weights.mean():.4f}", "±", f"{weights.std():.4f}"),
    ]


def test_broken_values_are_pointed_out(gpt2, here, model):
    shutil.copyfile(f"{model}/config.json", "config.json")
    tensors = load_file(f"{model}/model.safetensors")
    tensors["transformer.ln_f.bias"][:3] = np.nan
    save_file(tensors, "model.safetensors", metadata={"format": "pt"})
    lines = gpt2("inspect", here, "--tensors")[1].splitlines()
    assert [line.split()[0] for line in lines if line.endswith("   3 values are NaN or infinite")] == ["ln_f.bias"]
    assert sum("NaN" in line for line in lines) == 1


def test_the_format_is_named(gpt2, golden):
    assert re.search(r"^format +openai$", gpt2("inspect", golden / "openai-tiny")[1], re.MULTILINE)


# --- differences ---


def test_a_model_does_not_differ_from_its_copy(gpt2, here, model):
    shutil.copytree(model, "copy", ignore=shutil.ignore_patterns("sharded", "base*"))
    status, out, _ = gpt2("inspect", "--diff", model, "copy")
    assert (status, out) == (0, f"A {model}\nB copy\n40 of 40 tensors that both hold in one shape are bit-equal\n")


def test_tensors_that_differ_are_named_the_furthest_first(gpt2, here, model):
    shutil.copyfile(f"{model}/config.json", "config.json")
    tensors = load_file(f"{model}/model.safetensors")
    tensors["transformer.ln_f.bias"][0] += 1
    tensors["transformer.wte.weight"][3, 4] += 2
    save_file(tensors, "model.safetensors", metadata={"format": "pt"})
    status, out, _ = gpt2("inspect", "--diff", model, here)
    assert status == 1
    assert out.splitlines()[2:] == [
        f"vocabulary: only in {model}",
        "wte.weight                  differs by at most 2",
        "ln_f.bias                   differs by at most 1",
        "38 of 40 tensors that both hold in one shape are bit-equal",
    ]


def test_other_shapes_and_settings_are_named(gpt2, golden):
    status, out, _ = gpt2("inspect", "--diff", "--tensors", golden / "hf-v5", golden / "openai-tiny")
    assert status == 1
    assert "width: A 40, B 48" in out
    assert "wte.weight                  A (320, 40), B (320, 48)" in out
    assert "0 of 0 tensors that both hold in one shape are bit-equal" in out


def test_only_so_many_differences_are_listed_unless_asked_for(gpt2, golden):
    models = golden / "hf-safetensors", golden / "hf-halfprec" / "bf16"
    short, long = (gpt2("inspect", "--diff", *models, *more)[1].splitlines() for more in ((), ("--tensors",)))
    assert sum("differs by" in line for line in short) == 12
    assert "and 28 more tensors; --tensors lists them" in short
    assert sum("differs by" in line or "equal values" in line for line in long) == 40


def test_other_shapes_are_listed_only_so_far_too(gpt2, golden):
    lines = gpt2("inspect", "--diff", golden / "hf-v5", golden / "openai-tiny")[1].splitlines()
    assert sum(" A (" in line for line in lines) == 12


def test_a_broken_value_is_no_distance(gpt2, shared, golden):
    bad = shared / "fixtures" / "bad" / "st_nan_weights"
    assert (
        "one has NaN or infinity where the other has not"
        in gpt2("inspect", "--diff", bad, golden / "hf-safetensors")[1]
    )


def test_steps_are_told_apart(gpt2, shared):
    run = shared / "fixtures" / "nshepperd" / "checkpoint" / "run1"
    assert gpt2("inspect", "--diff", f"{run}@2", f"{run}@4")[1].startswith(f"A {run}, step 2\nB {run}, step 4\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("a", "b"), "expected one model, or two with --diff, got 2"),
        (("--diff", "a"), "expected two models with --diff, got 1"),
    ],
)
def test_the_number_of_models_must_fit(gpt2, words, problem):
    status, _, err = gpt2("inspect", *words)
    assert (status, err) == (1, f"gpt2: {problem}\n")
