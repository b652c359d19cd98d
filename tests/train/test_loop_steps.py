"""What one step does to the weights: parts, memory savers, clipping, dropout, float16."""

import math

import pytest
import torch

from gpt2kit.errors import ConfigError

pytestmark = pytest.mark.slow  # every test trains, many of them several times


def weights_after(trainer, never, steps=3):
    """All weights in one row after some steps, and the losses on the way."""
    trainer.train(never)
    losses = [entry["loss"] for entry in trainer.run.metrics("train")]
    assert len(losses) == steps
    return torch.cat([weight.detach().flatten() for weight in trainer.network.parameters()]), losses


def first_moments(trainer):
    return {weight: state["exp_avg"] for weight, state in trainer.optimizer.memory()}


def gradient_norm(trainer):
    """Of the first step's gradient as it came to AdamW, whose first moment is a tenth of it then."""
    return 10 * math.sqrt(sum(moment.norm().item() ** 2 for moment in first_moments(trainer).values()))


# --- a step in parts ---


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_teaches_what_the_whole_batch_teaches(trainer_of, never, parts):
    whole, cut = trainer_of("whole", steps=1), trainer_of("cut", steps=1, accumulate=parts)
    (_, expected), (_, found) = weights_after(whole, never, 1), weights_after(cut, never, 1)
    assert found == pytest.approx(expected, rel=1e-6)
    for moment, judge in zip(first_moments(cut).values(), first_moments(whole).values(), strict=True):
        torch.testing.assert_close(moment, judge, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("changes", [{"loss_chunk": 1}, {"loss_chunk": 7}, {"loss_chunk": 10_000}], ids=str)
def test_chunks_of_the_loss_change_nothing_but_rounding(trainer_of, never, changes):
    (_, expected), (_, found) = (
        weights_after(trainer_of(str(number), steps=3, **extra), never) for number, extra in enumerate([{}, changes])
    )
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.3}, {"accumulate": 2}, {"precision": "bf16"}], ids=str)
def test_recomputing_gives_the_same_weights_bit_for_bit(trainer_of, never, changes):
    """Dropout must drop the same things the second time."""
    kept, recomputed = trainer_of("a", steps=3, **changes), trainer_of("b", steps=3, recompute=True, **changes)
    assert torch.equal(weights_after(kept, never)[0], weights_after(recomputed, never)[0])


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"dropout": 0.3}], ids=str)
def test_stepping_in_backward_gives_the_same_weights_bit_for_bit(trainer_of, never, changes):
    ordinary = trainer_of("a", steps=3, clip_norm=0, **changes)
    eager = trainer_of("b", steps=3, clip_norm=0, step_in_backward=True, **changes)
    assert torch.equal(weights_after(ordinary, never)[0], weights_after(eager, never)[0])


# --- clipping ---


def test_gradients_are_cut_to_the_longest_allowed_and_told_uncut(trainer_of, never):
    trainer = trainer_of(steps=1, clip_norm=1e-3)
    trainer.train(never)
    assert gradient_norm(trainer) == pytest.approx(1e-3, rel=1e-3)
    assert trainer.run.metrics("train")[0]["grad_norm"] > 1


@pytest.mark.parametrize("clip_norm", [0, 100.0])
def test_a_clip_of_0_or_above_the_norm_does_not_cut(trainer_of, never, clip_norm):
    trainer = trainer_of(steps=1, clip_norm=clip_norm)
    trainer.train(never)
    told = trainer.run.metrics("train")[0]["grad_norm"]
    assert gradient_norm(trainer) == pytest.approx(told, rel=1e-4)
    assert told > 1, "the default would cut this one"


@pytest.mark.parametrize("clip_norm", [1e-3, 0.5, 100.0])
def test_clipping_is_torchs(trainer_of, never, clip_norm):
    uncut, cut = trainer_of("a", steps=1, clip_norm=0), trainer_of("b", steps=1, clip_norm=clip_norm)
    for trainer in (uncut, cut):
        trainer.train(never)
    expected = [torch.nn.Parameter(moment) for moment in first_moments(uncut).values()]
    for weight in expected:
        weight.grad = 10 * weight.detach()
    torch.nn.utils.clip_grad_norm_(expected, clip_norm)
    for moment, weight in zip(first_moments(cut).values(), expected, strict=True):
        torch.testing.assert_close(10 * moment, weight.grad, rtol=1e-5, atol=1e-9)


# --- dropout ---


def test_dropout_makes_other_steps_and_each_seed_its_own(trainer_of, never):
    changes = [{}, {"dropout": 0.1}, {"dropout": 0.2}]
    losses = [
        tuple(weights_after(trainer_of(str(number), steps=3, **extra), never)[1])
        for number, extra in enumerate(changes)
    ]
    assert len(set(losses)) == 3


def test_dropout_drops_other_things_at_every_step_and_in_every_part(trainer_of, never, corpus_of):
    """The learning rate is next to nothing and all windows are alike, so the losses differ by dropout alone.

    Two parts that dropped the same would have the loss of the first alone.
    """
    changes = {"learn": corpus_of([7] * 400), "learning_rate": 1e-12, "steps": 4, "dropout": 0.3}
    sizes = [{"batch_size": 1}, {"batch_size": 2, "accumulate": 2}]
    losses = [
        loss
        for number, size in enumerate(sizes)
        for loss in weights_after(trainer_of(str(number), **changes, **size), never, 4)[1]
    ]
    assert len({round(loss, 4) for loss in losses}) == 8


@pytest.mark.parametrize("changes", [{}, {"recompute": True}, {"accumulate": 2}], ids=str)
def test_nobodys_random_numbers_are_touched_by_dropout_nor_touch_it(trainer_of, never, changes):
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        weights.append(weights_after(trainer_of(str(seed), steps=3, dropout=0.3, **changes), never)[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*weights)


# --- precision ---


@pytest.mark.parametrize(("precision", "near"), [("bf16", 1e-2), ("fp16", 2e-3)])
def test_16_bits_learn_nearly_as_float32(trainer_of, never, precision, near):
    exact = weights_after(trainer_of("a", steps=3), never)[1]
    found = weights_after(trainer_of("b", steps=3, precision=precision), never)[1]
    assert found == pytest.approx(exact, rel=near)
    assert found != exact


def test_a_scaled_loss_is_told_and_clipped_unscaled(trainer_of, never):
    exact, scaled = trainer_of("a", steps=1), trainer_of("b", steps=1, precision="fp16")
    for trainer in (exact, scaled):
        trainer.train(never)
    for name in ("loss", "grad_norm"):
        judge = exact.run.metrics("train")[0][name]
        assert scaled.run.metrics("train")[0][name] == pytest.approx(judge, rel=1e-2)
    assert gradient_norm(scaled) == pytest.approx(1.0, rel=1e-3)


def counts(trainer):
    """How many updates AdamW counts for each weight."""
    return {float(state["step"]) if state else 0.0 for _, state in trainer.optimizer.memory()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_scale_that_is_too_large_skips_the_step_and_is_halved(trainer_of, never, make_network, optimizer):
    trainer = trainer_of(steps=3, precision="fp16", optimizer=optimizer)
    trainer.scaler.update(2.0**60)
    found, _ = weights_after(trainer, never)
    assert torch.equal(found, torch.cat([weight.detach().flatten() for weight in make_network().parameters()]))
    skips = [(entry["step"], entry["loss_scale"]) for entry in trainer.run.metrics("skip")]
    assert skips == [(1, 2.0**60), (2, 2.0**59), (3, 2.0**58)]
    assert trainer.updates == 0
    assert counts(trainer) == {0.0}


def test_after_skipped_steps_learning_goes_on_and_counts_from_there(trainer_of, never):
    trainer = trainer_of(steps=8, precision="fp16")
    trainer.scaler.update(2.0**24)
    trainer.train(never)
    skipped = len(trainer.run.metrics("skip"))
    assert 0 < skipped < 8
    assert trainer.updates == 8 - skipped
    assert counts(trainer) == {8.0 - skipped}


def test_one_gradient_that_is_too_large_keeps_every_weight_from_changing(trainer_of, never, make_network):
    """Matrices and the rest are in two optimizers of torch, of which one alone would go on."""
    network = make_network()
    network.ln_f.bias.register_hook(lambda gradient: gradient * math.inf)
    trainer = trainer_of(network=network, steps=2, precision="fp16")
    found, _ = weights_after(trainer, never, 2)
    assert torch.equal(found, torch.cat([weight.detach().flatten() for weight in make_network().parameters()]))
    assert (trainer.updates, counts(trainer)) == (0, {0.0})


def test_gradients_that_no_scale_makes_small_enough_end_the_run(trainer_of, never, make_network):
    network = make_network()
    network.ln_f.bias.register_hook(lambda gradient: gradient * math.inf)
    trainer = trainer_of(network=network, steps=9, precision="fp16")
    trainer.scaler.update(4.0)
    with pytest.raises(ConfigError, match=r"^step 4: the loss is \d.*, the gradient is (nan|inf)"):
        trainer.train(never)
