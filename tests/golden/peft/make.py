"""Make the adapters of this directory, and what peft computes with them: python make.py, with peft and transformers.

The base of all is ../hf-safetensors. Weights are drawn, for what peft begins with changes nothing.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2LMHeadModel

HERE = Path(__file__).parent
BASE = HERE.parent / "hf-safetensors"
EVERY_LINEAR = ["c_attn", "c_proj", "c_fc"]
ADAPTERS = {
    "c_attn": {"target_modules": ["c_attn"], "r": 4, "lora_alpha": 12},
    "patterns": {
        "target_modules": EVERY_LINEAR,
        "r": 2,
        "lora_alpha": 3,
        "use_rslora": True,
        "rank_pattern": {"attn.c_proj": 5, "h.1.mlp.c_proj": 3},
        "alpha_pattern": {"c_fc": 7, "transformer.h.2.attn.c_attn": 9},
        "bias": "lora_only",
    },
    "regex": {"target_modules": r".*\.h\.(0|2)\.mlp\.c_(fc|proj)", "r": 3, "bias": "all"},
    "all_linear": {"target_modules": "all-linear", "r": 2},
    "one_layer": {"target_modules": ["attn.c_attn", "c_fc"], "layers_to_transform": [1], "r": 3},
    "embeddings": {"target_modules": ["wte", "wpe", "c_attn"], "r": 2},
    "head": {"target_modules": ["lm_head", "c_fc"], "r": 2, "modules_to_save": ["ln_f", "ln_1"]},
    "saved_head": {"target_modules": ["c_attn"], "r": 2, "modules_to_save": ["lm_head"]},
    "saved_embedding": {"target_modules": ["c_attn"], "r": 2, "modules_to_save": ["wte"]},
}


def base():
    return GPT2LMHeadModel.from_pretrained(BASE).eval()


def drawn(settings, seed):
    torch.manual_seed(seed)
    model = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.peft_config["default"].base_model_name_or_path = BASE.name
    return model.eval()


@torch.inference_mode()
def logits(model, ids):
    return model(input_ids=ids).logits.numpy()


def main():
    ids = torch.tensor(np.load(BASE / "expected.npz")["tokens_0"])
    for seed, (name, settings) in enumerate(ADAPTERS.items(), 1401):
        place = HERE / name
        shutil.rmtree(place, ignore_errors=True)
        drawn(settings, seed).save_pretrained(place)
        (place / "README.md").unlink()
        unmerged = PeftModel.from_pretrained(base(), place).eval()
        expected = {"ids": ids.numpy(), "logits": logits(unmerged, ids)}
        if not {"wte", "lm_head"} & set(settings["target_modules"]):  # those peft merges into both ends of the model
            expected["merged"] = logits(unmerged.merge_and_unload().eval(), ids)
        np.savez_compressed(place / "expected.npz", **expected)


if __name__ == "__main__":
    main()
