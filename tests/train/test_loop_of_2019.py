"""What nshepperd's train.py and gpt-2-simple did, as values of the one loop."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gpt2kit.data.batches import batch_at
from gpt2kit.errors import DiskFull, OutOfMemory

pytestmark = pytest.mark.slow  # every test trains


@pytest.fixture
def weights_of(trainer_of, never):
    """Every weight by name, before and after the steps of a trainer with these settings; each has a run of its own."""
    numbers = itertools.count()

    def make(**changes):
        trainer = trainer_of(f"run{next(numbers)}", **{"steps": 1, "clip_norm": 0, "warmup_steps": 0, **changes})
        before = {name: weight.detach().clone() for name, weight in trainer.network.named_parameters()}
        trainer.train(never)
        return before, {name: weight.detach() for name, weight in trainer.network.named_parameters()}

    return make


# --- plain gradient descent ---


def test_sgd_goes_down_the_gradient(weights_of, make_network, text):
    before, after = weights_of(optimizer="sgd", learning_rate=0.5, weight_decay=0.0)
    network, batch = make_network(), batch_at(text, 0, 0, 4)
    logits_BTV = network(torch.from_numpy(batch.inputs_BT))
    F.cross_entropy(logits_BTV.flatten(0, 1), torch.from_numpy(batch.targets_BT).flatten()).backward()
    for name, weight in network.named_parameters():
        torch.testing.assert_close(after[name], before[name] - 0.5 * weight.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_sgd_goes_on_exactly_where_it_was(trainer_of, never, resumed):
    whole = trainer_of("whole", steps=4, optimizer="sgd", save_every=2)
    whole.train(never)
    half = trainer_of("half", steps=2, optimizer="sgd", save_every=2)
    half.train(never)
    again = resumed(half.run, steps=4, optimizer="sgd", save_every=2)
    again.train(never)
    for expected, found in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(expected, found)


# --- a rate of zero ---

RATE_0 = {"learning_rate": 0.0, "weight_decay": 0.1}


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "sgd"}, {"step_in_backward": True}, {"only_train_transformer_layers": True}, {"noise": 0.5}],
    ids=str,
)
def test_at_a_rate_of_zero_all_weights_stay_as_they_are(weights_of, changes):
    before, after = weights_of(**RATE_0, steps=3, **changes)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_at_a_rate_of_zero_every_measurement_is_the_same(trainer_of, never, other_text):
    trainer = trainer_of(**RATE_0, validate=other_text, validate_first=True)
    trainer.train(never)
    first, *later = [event["loss"] for event in trainer.run.metrics("validation")]
    assert later == [first, first]


# --- gradients that are added up ---


def test_a_sum_of_four_parts_goes_four_times_as_far(weights_of):
    sgd = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "accumulate": 4}
    before, mean = weights_of(**sgd)
    _, total = weights_of(**sgd, accumulate_as="sum")
    for name, start in before.items():
        torch.testing.assert_close(total[name] - start, 4 * (mean[name] - start), rtol=1e-3, atol=1e-6, msg=name)


def test_a_sum_tells_the_mean_loss(trainer_of, never):
    losses = []
    for how in ("mean", "sum"):
        trainer = trainer_of(how, steps=1, accumulate=4, accumulate_as=how)
        losses.append(trainer.train(never).loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[0] == pytest.approx(math.log(320), abs=1.5), "of one token, not of four"


# --- layers only ---


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd"}, {"optimizer": "muon"}, {"recompute": True}], ids=str)
def test_only_the_layers_learn(weights_of, changes):
    before, after = weights_of(only_train_transformer_layers=True, weight_decay=0.1, steps=2, **changes)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"}


def test_what_the_layers_learn_is_what_they_would_have_learnt(weights_of):
    """With plain gradients the first step of a layer does not depend on whether the embedding learns."""
    sgd = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0}
    _, every = weights_of(**sgd)
    _, layers = weights_of(**sgd, only_train_transformer_layers=True)
    for name in every:
        if name.startswith("h."):
            torch.testing.assert_close(layers[name], every[name], msg=name)


def test_layers_that_learn_alone_step_in_backward_too(weights_of):
    changes = {"only_train_transformer_layers": True, "steps": 2}
    _, whole = weights_of(**changes)
    _, eager = weights_of(**changes, step_in_backward=True)
    assert all(torch.equal(whole[name], eager[name]) for name in whole)


# --- noise ---


def test_noise_changes_what_is_read_and_not_what_is_predicted(trainer_of):
    trainer = trainer_of(noise=0.5)
    noisy, clean = trainer._batch(0), batch_at(trainer.learn, 0, 0, 4)
    np.testing.assert_array_equal(noisy.targets_BT, clean.targets_BT)
    assert 0.3 < (noisy.inputs_BT != clean.inputs_BT).mean() < 0.7


def test_noise_makes_it_harder_to_predict(trainer_of, never, corpus_of, make_network):
    """On a text that the model has learnt by heart."""
    text, network = corpus_of(np.arange(200) % 7 + 40), make_network()
    quiet = {"learn": text, "network": network, "steps": 60, "validate_every": 60, "save_every": 60, "sample_every": 0}
    learnt = trainer_of("learns", **quiet, learning_rate=3e-3).train(never).loss
    noisy = trainer_of("noisy", **{**quiet, "steps": 1}, noise=0.5, learning_rate=1e-9).train(never).loss
    assert noisy > 5 * learnt


# --- measuring ---


def test_it_measures_before_the_first_step_too(trainer_of, never, other_text):
    trainer = trainer_of(validate=other_text, validate_first=True)
    trainer.train(never)
    assert [event["step"] for event in trainer.run.metrics("validation")] == [0, 3, 6]
    plain = trainer_of("other", validate=other_text)
    plain.train(never)
    assert [event["step"] for event in plain.run.metrics("validation")] == [3, 6]


def test_a_disk_that_is_full_before_the_first_step_is_told_as_later(trainer_of, never, other_text):
    trainer = trainer_of(validate=other_text, validate_first=True)
    trainer.run.metrics_path.symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=r"no room for what step 0 writes.*nothing was saved before; make room"):
        trainer.train(never)


def test_memory_that_is_short_before_the_first_step_is_told_as_later(trainer_of, never, other_text):
    """The network asks for more than any machine has, and torch's allocator says no."""
    trainer = trainer_of(validate=other_text, validate_first=True)
    trainer.hidden = lambda ids: torch.empty(2**50)
    with pytest.raises(OutOfMemory, match="take a smaller batch_size or window, or accumulate"):
        trainer.train(never)
    assert trainer.step == 0


@pytest.mark.parametrize(("asked", "measured"), [(0, 19), (4, 4), (100, 19)])
def test_it_measures_on_as_many_windows_as_are_asked(trainer_of, never, other_text, asked, measured):
    reports = []
    trainer = trainer_of(
        validate=other_text, validation_windows=asked, validate_first=True, steps=1, report=reports.append
    )
    trainer.train(never)
    totals = {report.total for report in reports if report.task == "validate"}
    assert totals == {measured}


def test_some_windows_give_the_mean_of_these_windows(trainer_of, never, other_text, make_network):
    trainer = trainer_of(validate=other_text, validation_windows=3, validate_first=True, steps=1)
    trainer.train(never)
    network, losses = make_network().eval(), []
    for start in (0, 6 * 16, 12 * 16):  # of 19 windows of 16 tokens: numbers 0, 19 // 3 and 38 // 3
        ids = torch.from_numpy(other_text.take(np.arange(start, start + 17)))
        losses.append(F.cross_entropy(network(ids[None, :-1])[0], ids[1:]).item())
    assert trainer.run.metrics("validation")[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
