import math

import pytest
import torch

from gpt2kit.train.schedule import share_of_peak


@pytest.fixture
def share(recipe_of):
    """The share of the peak at a step, of 12 with 4 to warm up in unless told otherwise."""

    def at(step, **changes):
        return share_of_peak(recipe_of(**({"warmup_steps": 4, "steps": 12} | changes)), step)

    return at


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_rises_in_a_line_to_its_peak(share, schedule):
    assert [share(step, schedule=schedule) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_a_constant_rate_stays_at_its_peak(share):
    assert {share(step, schedule="constant") for step in range(4, 12)} == {1.0}


@pytest.mark.parametrize(("step", "expected"), [(4, 1.0), (8, 0.55), (6, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)])
def test_a_cosine_is_at_its_peak_half_and_quarter_way_where_it_should_be(share, step, expected):
    """Between 1 and a tenth: 0.55 in the middle."""
    assert share(step) == pytest.approx(expected)


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_a_cosine_falls_as_torchs_does(share, final):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=3e-4)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=3e-4 * final)
    for step in range(4, 12):
        assert 3e-4 * share(step, final_rate=final) == pytest.approx(torchs.get_last_lr()[0])
        optimizer.step()
        torchs.step()


@pytest.mark.parametrize("final", [0.0, 0.1, 0.7])
def test_a_cosine_ends_at_the_final_rate(share, final):
    assert share(99_999, steps=100_000, final_rate=final) == pytest.approx(final, abs=1e-6)


def test_without_warmup_the_first_step_is_at_the_peak(share):
    assert share(0, warmup_steps=0) == 1.0


def test_a_warmup_longer_than_the_run_still_reaches_the_peak(share):
    assert share(4, warmup_steps=100, steps=5) == pytest.approx(1.0)


@pytest.mark.parametrize("warmup", [0, 1, 5, 100])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_every_rate_is_above_zero(share, warmup, final):
    assert all(share(step, warmup_steps=warmup, steps=5, final_rate=final) > 0 for step in range(5))
