import pytest

from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import ConfigError


@pytest.mark.parametrize("name", ["steps", "batch_size", "validate_every", "save_every", "print_every", "keep"])
def test_no_count_may_be_zero(name):
    with pytest.raises(ConfigError, match=f"^{name} must be 1 or more, got 0$"):
        TrainingConfig(**{name: 0})


@pytest.mark.parametrize("name", ["window", "warmup_steps", "weight_decay", "clip_norm"])
def test_no_amount_may_be_negative(name):
    with pytest.raises(ConfigError, match=f"^{name} must be 0 or more, got -1$"):
        TrainingConfig(**{name: -1})


@pytest.mark.parametrize("name", ["window", "warmup_steps", "weight_decay", "clip_norm", "seed"])
def test_an_amount_of_zero_switches_off(name):
    assert getattr(TrainingConfig(**{name: 0}), name) == 0


@pytest.mark.parametrize("value", [0.0, -1e-4])
def test_the_learning_rate_is_above_zero(value):
    with pytest.raises(ConfigError, match=r"^learning_rate must be above 0, got"):
        TrainingConfig(learning_rate=value)


@pytest.mark.parametrize("name", ["beta2", "validation_share"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_shares_stay_below_one(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} must be in \[0, 1\), got {value}$"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip_norm", "beta2", "validation_share"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_is_infinite_or_not_a_number(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must be a finite number, got {value}$"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed):
    with pytest.raises(ConfigError, match=rf"^seed must be in \[0, 2\*\*64\), got {seed}$"):
        TrainingConfig(seed=seed)
