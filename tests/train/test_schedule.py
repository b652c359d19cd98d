import math

import pytest
import torch

from gpt2kit.config.training import TrainingConfig
from gpt2kit.train.schedule import learning_rate

PEAK = 3e-4
COSINE = TrainingConfig(learning_rate=PEAK, warmup_steps=4, steps=12)
CONSTANT = TrainingConfig(learning_rate=PEAK, warmup_steps=4, steps=12, schedule="constant")


@pytest.mark.parametrize("config", [COSINE, CONSTANT], ids=["cosine", "constant"])
def test_the_rate_rises_in_a_line_to_its_peak(config):
    rates = [learning_rate(config, step) / PEAK for step in range(4)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_a_constant_rate_stays_at_its_peak():
    assert {learning_rate(CONSTANT, step) for step in range(4, 12)} == {PEAK}


@pytest.mark.parametrize(("step", "share"), [(4, 1.0), (8, 0.55), (6, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)])
def test_a_cosine_is_at_its_peak_half_and_quarter_way_where_it_should_be(step, share):
    """Between 1 and a tenth: 0.55 in the middle."""
    assert learning_rate(COSINE, step) == pytest.approx(share * PEAK)


def test_a_cosine_falls_as_torchs_does():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=PEAK)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=PEAK / 10)
    for step in range(4, 12):
        assert learning_rate(COSINE, step) == pytest.approx(torchs.get_last_lr()[0])
        optimizer.step()
        torchs.step()


def test_a_cosine_ends_at_a_tenth_of_its_peak():
    config = TrainingConfig(learning_rate=PEAK, steps=1000)
    assert learning_rate(config, 999) == pytest.approx(PEAK / 10, rel=1e-3)


def test_without_warmup_the_first_step_is_at_the_peak():
    assert learning_rate(TrainingConfig(learning_rate=PEAK, warmup_steps=0), 0) == PEAK


def test_a_warmup_longer_than_the_run_still_reaches_the_peak():
    config = TrainingConfig(learning_rate=PEAK, warmup_steps=100, steps=5)
    assert learning_rate(config, 4) == pytest.approx(PEAK)


@pytest.mark.parametrize("warmup", [0, 1, 5, 100])
def test_every_rate_is_above_zero(warmup):
    config = TrainingConfig(warmup_steps=warmup, steps=5)
    assert all(learning_rate(config, step) > 0 for step in range(5))
