"""Which modules settings mean, and with which rank and alpha: the same as peft finds."""

import json
from itertools import product

import pytest

from gpt2kit.formats.peft_settings import read_settings

pytestmark = pytest.mark.slow  # peft takes seconds to load
MODULES = [
    *("transformer.wte", "transformer.wpe", "lm_head"),
    *(
        f"transformer.h.{layer}.{part}"
        for layer, part in product(range(12), ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
    ),
]
PATTERNS = [
    *("c_attn", "attn.c_proj", "mlp", "proj", "h.1.mlp.c_fc", "transformer.h.11.attn.c_attn", "1.attn.c_attn"),
    *(r"h\.\d+\.mlp\.c_fc", r"h\.(1|11)\.mlp\.c_proj", r"^transformer\.h\.2\..*", r"^h\.2\..*", ".*c_proj"),
    *("[0-5].attn.*", "lm_head"),
    *(r"h.1.attn.c_attn$", r"(attn|mlp)\.c_proj", ".+attn", r"\d\.attn.c_attn", "transformer.wte", "a|c_fc|b"),
]  # fmt: skip
TARGETS = [
    {"target_modules": ["c_attn"]},
    {"target_modules": ["attn.c_proj", "lm_head", "wte"]},
    {"target_modules": ["proj", "c_fc", "h.3.attn.c_attn", "h.3"]},
    {"target_modules": ["transformer.h.1.attn.c_attn", "mlp.c_proj"]},
    {"target_modules": ["c_attn", "wte"], "layers_to_transform": [1, 11]},
    {"target_modules": ["c_attn", "c_fc"], "layers_to_transform": 4},
    {"target_modules": ["c_attn", "c_fc"], "layers_to_transform": []},
    {"target_modules": ["c_attn", "c_proj"], "exclude_modules": ["mlp.c_proj", "transformer.h.0.attn.c_attn"]},
    {"target_modules": ["c_attn", "lm_head"], "modules_to_save": ["lm_head"]},
    {"target_modules": r".*\.h\.(0|11)\.attn\.c_\w"},
    {"target_modules": r"transformer\.h\.\d\.mlp\.c_fc"},
    {"target_modules": r".*attn.*c_proj"},
    {"target_modules": r"h\.0\.attn\.c_attn"},
]


@pytest.fixture
def both(tmp_path):
    """both(**settings): our settings and peft's LoraConfig of the same adapter_config.json."""
    from peft import LoraConfig

    def opened(**settings):
        file = tmp_path / "adapter_config.json"
        file.write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 6} | settings), "utf-8")
        return read_settings(file), LoraConfig.from_pretrained(tmp_path)

    return opened


@pytest.mark.parametrize("settings", TARGETS, ids=str)
def test_targets_are_those_that_peft_finds(both, settings):
    from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists

    ours, theirs = both(**settings)
    found = {module: check_target_module_exists(theirs, module) for module in MODULES}
    expected = {module for module, hit in found.items() if hit and not isinstance(hit, _ExcludedModule)}
    assert ours.targets(MODULES) == expected


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_mean_the_modules_that_peft_finds(both, pattern):
    from peft.utils.other import get_pattern_key

    ours, _ = both(rank_pattern={pattern: 16, "c_fc": 2}, alpha_pattern={"c_proj": 5, pattern: 3}, use_rslora=True)
    for module in MODULES:
        rank = {pattern: 16, "c_fc": 2}.get(get_pattern_key([pattern, "c_fc"], module), 4)
        alpha = {"c_proj": 5, pattern: 3}.get(get_pattern_key(["c_proj", pattern], module), 6)
        assert (ours.rank(module), ours.scale(module)) == (rank, alpha / rank**0.5)
