"""A loss that is no number, and too little memory: the snapshot before is whole, and the error says what to do."""

import pytest
import torch

from gpt2kit.errors import ConfigError, OutOfMemory

LEAN = {"step_in_backward": True, "clip_norm": 0.0}

# --- a loss that is no number ---


def spoil(network):
    with torch.no_grad():
        network.ln_f.bias.fill_(float("nan"))


@pytest.mark.parametrize("changes", [{}, LEAN, {"accumulate": 2}, {"precision": "bf16"}], ids=str)
def test_a_loss_that_is_no_number_ends_the_run_and_names_the_last_snapshot(trainer_of, stop_after, changes):
    trainer = trainer_of(save_every=2, **changes)
    with pytest.raises(
        ConfigError, match=r"^step 4: the loss is nan.*snapshot of step 2 is whole.*lower learning_rate"
    ):
        trainer.train(stop_after(3, lambda: spoil(trainer.network)))
    assert trainer.run.newest_sound() == (2, [])


def test_a_loss_that_is_no_number_before_the_first_snapshot_promises_none(trainer_of, stop_after):
    trainer = trainer_of()
    with pytest.raises(ConfigError, match=r"^step 2: the loss is nan.*nothing was saved yet"):
        trainer.train(stop_after(1, lambda: spoil(trainer.network)))
    assert trainer.run.latest() is None


@pytest.mark.parametrize("changes", [{}, LEAN], ids=str)
def test_a_loss_that_is_no_number_changes_no_weight(trainer_of, stop_after, changes):
    trainer = trainer_of(**changes)
    with pytest.raises(ConfigError):
        trainer.train(stop_after(2, lambda: spoil(trainer.network)))
    others = [weight for name, weight in trainer.network.named_parameters() if name != "ln_f.bias"]
    assert all(weight.isfinite().all() for weight in others)


def test_weights_that_are_no_numbers_are_never_saved(trainer_of, stop_after):
    """The loss of step 4 is a number, and so nothing stops a weight that changes in backward; the snapshot does."""
    trainer = trainer_of(save_every=2, **LEAN)
    weight = trainer.network.ln_f.bias
    with pytest.raises(
        ConfigError, match=r"^step 4: the length of all weights is nan; the snapshot of step 2 is whole"
    ):
        trainer.train(stop_after(3, lambda: weight.register_hook(lambda grad: grad * torch.nan)))
    assert trainer.run.newest_sound() == (2, [])


@pytest.mark.parametrize("changes", [{}, LEAN], ids=str)
def test_a_learning_rate_that_explodes_is_the_users_mistake(trainer_of, never, changes):
    with pytest.raises(ConfigError, match=r"^step [23]: the loss is (nan|inf)"):
        trainer_of(learning_rate=1e30, **changes).train(never)


# --- no memory ---


def test_a_batch_that_does_not_fit_names_what_to_change(trainer_of, never):
    """The network asks for more than any machine has, and torch's allocator says no."""
    trainer = trainer_of()
    trainer.hidden = lambda ids: torch.empty(2**50)
    with pytest.raises(OutOfMemory, match="take a smaller batch_size or window, or accumulate"):
        trainer.train(never)
