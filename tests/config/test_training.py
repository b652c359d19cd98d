from dataclasses import fields

import pytest

from gpt2kit.config.training import PRESETS, Recipe, TrainingConfig
from gpt2kit.errors import ConfigError

COUNTS = ["steps", "batch_size", "accumulate", "window", "validate_every", "save_every", "print_every"]
COUNTS += ["loss_chunk", "sample_tokens", "keep"]
AMOUNTS = ["learning_rate", "warmup_steps", "weight_decay", "clip_norm", "patience", "sample_every"]
AMOUNTS += ["validation_windows"]
NUMBERS = ["learning_rate", "muon_learning_rate", "weight_decay", "clip_norm", "beta2", "validation_share", "epochs"]
OPEN = {  # what a recipe adds to what is given by default
    **{"steps": 10, "batch_size": 4, "accumulate": 2, "window": 8, "learning_rate": 1e-3, "warmup_steps": 0},
    **{"precision": "bf16", "validation_share": 0.0, "validate_every": 5, "save_every": 5, "sample_every": 0},
}


@pytest.mark.parametrize("name", COUNTS)
def test_no_count_may_be_zero(name):
    with pytest.raises(ConfigError, match=f"^{name} must be 1 or more, got 0$"):
        TrainingConfig(**{name: 0})


@pytest.mark.parametrize("name", AMOUNTS)
def test_no_amount_may_be_negative(name):
    with pytest.raises(ConfigError, match=f"^{name} must be 0 or more, got -1$"):
        TrainingConfig(**{name: -1})


@pytest.mark.parametrize("name", [*AMOUNTS, "seed", "dropout", "beta2", "validation_share", "final_rate"])
def test_an_amount_of_zero_is_allowed(name):
    assert getattr(TrainingConfig(**{name: 0}), name) == 0


@pytest.mark.parametrize("name", ["muon_learning_rate", "epochs"])
@pytest.mark.parametrize("value", [0.0, -1e-4])
def test_rates_and_epochs_are_above_zero(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} must be above 0, got"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("name", ["beta2", "noise", "dropout", "validation_share"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_shares_stay_below_one(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} must be in \[0, 1\), got {value}$"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_the_final_rate_is_at_most_the_peak(value):
    with pytest.raises(ConfigError, match=rf"^final_rate must be in \[0, 1\], got {value}$"):
        TrainingConfig(final_rate=value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_is_infinite_or_not_a_number(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must be a finite number, got {value}$"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed):
    with pytest.raises(ConfigError, match=rf"^seed must be in \[0, 2\*\*64\), got {seed}$"):
        TrainingConfig(seed=seed)


# --- settings that do not go together ---


def test_steps_and_epochs_are_one_too_many():
    with pytest.raises(ConfigError, match="steps and epochs say the same thing"):
        TrainingConfig(steps=10, epochs=1)


def test_a_batch_is_cut_into_equal_parts_only():
    with pytest.raises(ConfigError, match="a batch_size of 10 cannot be cut into 4 equal parts"):
        TrainingConfig(batch_size=10, accumulate=4)


@pytest.mark.parametrize("changes", [{"accumulate": 4}, {"batch_size": 10}, {"batch_size": 12, "accumulate": 4}])
def test_a_batch_or_parts_alone_and_whole_parts_are_fine(changes):
    assert TrainingConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "cannot clip: set clip_norm to 0, got 1.0"),
        ({"clip_norm": 0, "accumulate": 2}, "takes the batch whole, not in 2"),
        ({"clip_norm": 0, "precision": "fp16"}, "not fp16"),
        ({"clip_norm": 0, "optimizer": "muon"}, "is for adamw, not muon"),
    ],
)
def test_stepping_in_backward_needs_some_settings(changes, problem):
    with pytest.raises(ConfigError, match=f"^step_in_backward.*{problem}"):
        TrainingConfig(step_in_backward=True, **changes)


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_stepping_in_backward_is_otherwise_fine(precision):
    assert TrainingConfig(step_in_backward=True, clip_norm=0, accumulate=1, precision=precision)


# --- recipes and presets ---


def test_a_recipe_takes_over_every_setting():
    config = TrainingConfig(**OPEN, dropout=0.25, keep=7, seed=9, patience=1)
    recipe = Recipe.of(config)
    for field in fields(TrainingConfig):
        assert getattr(recipe, field.name) == getattr(config, field.name), field.name


@pytest.mark.parametrize("name", OPEN)
def test_a_recipe_leaves_nothing_open(name):
    with pytest.raises(AssertionError, match=f"^still open: ..{name}"):
        Recipe.of(TrainingConfig(**{key: value for key, value in OPEN.items() if key != name}))


def test_a_recipe_is_checked_as_its_settings_are():
    with pytest.raises(ConfigError, match="cannot be cut"):
        Recipe(**{**OPEN, "accumulate": 3})


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_settings_that_go_together(name):
    config = TrainingConfig(**PRESETS[name])
    assert {key: getattr(config, key) for key in PRESETS[name]} == PRESETS[name]


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("schedule", "linear"),
        ("optimizer", "adam"),
        ("accumulate_as", "max"),
        ("precision", "fp8"),
        ("precision", None),
    ],
)
def test_words_that_mean_nothing_here_are_refused(setting, word):
    with pytest.raises(ConfigError, match=f"{setting} must be one of"):
        TrainingConfig(**{setting: word})
