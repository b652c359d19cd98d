import re
import shutil

import numpy as np
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
