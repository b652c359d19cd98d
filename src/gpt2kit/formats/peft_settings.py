"""adapter_config.json of PEFT's LoRA: which modules of a GPT-2 are adapted, how strongly, and by what kind of LoRA.

Names in it are those of modules, "transformer.h.0.attn.c_attn", or any end of them after a point. Where PEFT takes a
regular expression, only plain ones are heeded: those of strangers can take for ever.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2kit.errors import FormatError
from gpt2kit.json_object import read_object

# What would compute otherwise than W + scale * B A; all of them are absent, null, false or empty in a plain LoRA.
REFUSED = {
    "use_dora": "DoRA, which scales every column of the sum",
    "use_qalora": "QALoRA, which averages its inputs in groups",
    "use_bdlora": "a LoRA of blocks",
    "kasa_config": "KaSA, which cuts the base's own matrices",
    "monteclora_config": "a LoRA of drawn weights",
    "arrow_config": "a mixture of several adapters",
    "alora_invocation_tokens": "an activated LoRA, which leaves the tokens before a certain one alone",
    "layer_replication": "a model with some layers doubled",
    "enable_lora": "a LoRA of parts of c_attn, of PEFT's first versions",
    "lora_bias": "a LoRA with biases of its own",
    "target_parameters": "a LoRA of parameters that are no modules'",
    "trainable_token_indices": "single tokens of the embedding learnt apart",
}
# Anything else begins from changed base weights, which the adapter alone does not tell.
PLAIN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
KNOWN = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules"),
    *("exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern", "init_lora_weights"),
    "ensure_weight_tying",
}
# These matter while an adapter is trained, tell where it comes from, or belong to another setting; fan_in_fan_out is
# told by the kind of module, as PEFT does.
UNHEEDED = {
    *("bias", "lora_dropout", "inference_mode", "fan_in_fan_out", "merge_weights", "task_type", "auto_mapping"),
    *("base_model_name_or_path", "peft_version", "revision", "runtime_config", "megatron_config", "megatron_core"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config", "qalora_group_size"),
}
MOST_NAMES = 10_000
PLAIN = re.compile(r"[\w.]+")
# Nothing that is repeated can be matched in more than a few ways.
HARMLESS = re.compile(r"(?:[\w^$|()-]|(?:\\?\.|\\[dw]|\[[\d-]+\])[*+]?)*")
MOST_REPEATS, MOST_CHOICES, MOST_LETTERS, MOST_EXPRESSIONS = 2, 4, 200, 50


@dataclass(frozen=True)
class Settings:
    """What adapter_config.json says, checked."""

    stored: Mapping[str, Any] = field(repr=False)
    """All of it, as it was read."""
    file: Path

    def rank(self, module: str) -> int:
        """How many rows the lora_A of this module must have."""
        return int(self._of(module, "rank_pattern", "r"))

    def scale(self, module: str) -> float:
        """What B A is multiplied with there."""
        rank = self.rank(module)
        alpha = float(self._of(module, "alpha_pattern", "lora_alpha"))
        return alpha / (math.sqrt(rank) if self.stored.get("use_rslora") else rank)

    def saves(self, module: str) -> bool:
        """Whether a copy of this module was learnt whole, the base's own staying as it was."""
        return module.endswith(tuple(self.stored.get("modules_to_save") or ()))

    def targets(self, modules: Iterable[str]) -> set[str] | None:
        """Which of `modules`, those of a base with matrices, should be adapted; None where that is not told plainly."""
        named, left_out = self.stored["target_modules"], self.stored.get("exclude_modules") or []
        layers = self.stored.get("layers_to_transform")
        if named is None or isinstance(left_out, str) or self.stored.get("layers_pattern"):
            return None
        if isinstance(named, str) and named != "all-linear":
            if not _is_harmless(named):
                return None
            wanted = {module for module in modules if re.fullmatch(named, module)}
        elif isinstance(named, str):
            wanted = {module for module in modules if _layer(module) is not None}
        else:
            asked = [layers] if isinstance(layers, int) else layers
            wanted = {each for each in modules if _is_named(each, named) and (not asked or _layer(each) in asked)}
        return {module for module in wanted if not _is_named(module, left_out) and not self.saves(module)}

    def _of(self, module: str, patterns: str, otherwise: str) -> float:
        for pattern, value in (self.stored.get(patterns) or {}).items():
            if _is_named(module, [pattern]) if PLAIN.fullmatch(pattern) else re.fullmatch(_anywhere(pattern), module):
                return value
        return self.stored[otherwise]


def read_settings(file: Path) -> Settings:
    """What `file` says. Raises FormatError where it says what cannot be, or what is not known here."""
    stored = {"r": 8, "lora_alpha": 8, "target_modules": None} | read_object(file)
    if (kind := stored.get("peft_type")) != "LORA":
        raise FormatError(file, None, f"peft_type is {kind!r:.80}; of the adapters of PEFT only 'LORA' is known here")
    for name, what in REFUSED.items():
        if stored.get(name):
            raise FormatError(file, None, f"{name}: {what}; merge it with PEFT, and take what that saves")
    if (beginning := stored.get("init_lora_weights")) not in PLAIN_BEGINNINGS:
        raise FormatError(
            file,
            None,
            f"init_lora_weights is {beginning!r:.80}: it adds to other weights than the base's; save it with "
            "path_initial_model_for_weight_conversion, or merge it with PEFT",
        )
    _require_kinds(stored, file)
    if unknown := [name for name, value in stored.items() if value and name not in KNOWN | UNHEEDED]:
        warnings.warn(
            f"{file}: settings unknown here, and not heeded: {', '.join(map(repr, unknown)):.200}", stacklevel=3
        )
    return Settings(stored, file)


def _require_kinds(stored: Mapping[str, Any], file: Path) -> None:
    def require(holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise FormatError(file, None, f"{name} is {stored.get(name)!r:.80}; expected {expected}")

    def is_words(value: object) -> bool:
        return isinstance(value, list) and len(value) <= MOST_NAMES and all(isinstance(word, str) for word in value)

    require(_is_rank(stored["r"]), "r", "a whole number above 0")
    require(_is_number(stored["lora_alpha"]), "lora_alpha", "a number")
    for name in ("target_modules", "exclude_modules", "modules_to_save"):
        value = stored.get(name)
        is_text = isinstance(value, str) and name != "modules_to_save"
        require(value is None or is_text or is_words(value), name, "a list of names")
    layers = stored.get("layers_to_transform")
    whole = isinstance(layers, list) and all(type(layer) is int for layer in layers)
    require(layers is None or type(layers) is int or whole, "layers_to_transform", "numbers of layers")
    for name, is_fit in (("rank_pattern", _is_rank), ("alpha_pattern", _is_number)):
        patterns = stored.get(name) or {}
        fit = isinstance(patterns, dict) and len(patterns) <= MOST_NAMES and all(map(is_fit, patterns.values()))
        require(fit, name, "numbers by name of module")
        expressions = [pattern for pattern in patterns if not PLAIN.fullmatch(pattern)]
        for pattern in expressions:
            if len(expressions) > MOST_EXPRESSIONS or not _is_harmless(pattern):
                raise FormatError(
                    file, None, f"{name}: {pattern!r:.80} is not matched, for it may take for ever; name the modules"
                )


def _is_rank(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**31


def _is_named(module: str, names: Iterable[str]) -> bool:
    return any(f".{module}".endswith(f".{name}") for name in names)


def _layer(module: str) -> int | None:
    match = re.search(r"\bh\.(\d+)\.", module)
    return int(match[1]) if match else None


def _anywhere(pattern: str) -> str:
    return rf"(?:.*\.)?(?:{pattern})"


def _is_harmless(pattern: str) -> bool:
    few = len(re.findall(r"[*+]", pattern)) <= MOST_REPEATS and pattern.count("|") <= MOST_CHOICES
    if len(pattern) > MOST_LETTERS or not few or not HARMLESS.fullmatch(pattern):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
