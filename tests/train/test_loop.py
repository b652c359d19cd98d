"""What the loop computes and tells, against transformers and torch; see also test_loop_*.py."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gpt2kit.data.batches import batch_at
from gpt2kit.train.loop import first_loss

SENTENCE = [72, 101, 108, 300, 111, 44, 280, 32, 119, 5, 6, 319]


def steps_of(run, event):
    return [entry["step"] for entry in run.metrics(event)]


# --- as other programs learn ---


@pytest.fixture
def in_transformers(golden, transformers):
    plain = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.GPT2LMHeadModel.from_pretrained(golden / "hf-safetensors", **plain)


def transformers_losses(model, recipe, learn):
    """The losses of the same windows under transformers' network and torch's AdamW, the rules written out."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), foreach=False)
    losses = []
    for step in range(50):
        share = [0.5, 1.0][step] if step < 2 else 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 2) / 48))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share
        batch = batch_at(learn, recipe.seed, step, recipe.batch_size)
        logits_BTV = model(torch.from_numpy(batch.inputs_BT)).logits
        loss = F.cross_entropy(logits_BTV.transpose(1, 2), torch.from_numpy(batch.targets_BT))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
def test_training_is_that_of_transformers_and_torch(trainer_of, never, in_transformers, text):
    trainer = trainer_of(steps=50)
    expected = transformers_losses(in_transformers.train(), trainer.recipe, text)
    trainer.train(never)
    found = [entry["loss"] for entry in trainer.run.metrics("train")]
    np.testing.assert_allclose(found[:6], expected[:6], atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert expected[-1] < expected[0] - 0.5, "the model must have learnt"


@pytest.mark.slow
def test_one_sentence_is_learnt_by_heart(trainer_of, never, corpus_of):
    learn = corpus_of(SENTENCE, window=11)
    trainer = trainer_of(learn=learn, steps=60, batch_size=1, window=11, learning_rate=1e-2, warmup_steps=5)
    assert trainer.train(never).loss < 0.05


def transformers_validation_loss(model, corpus):
    """Windows of 16, and the 11 targets that are left of 299."""
    ids = torch.from_numpy(corpus.tokens.ids.astype(np.int64))
    pieces = [(ids[:288].view(18, 16), ids[1:289].view(18, 16)), (ids[None, 288:299], ids[None, 289:300])]
    with torch.no_grad():
        sums = [F.cross_entropy(model.eval()(x).logits.transpose(1, 2), y, reduction="sum") for x, y in pieces]
    return sum(sums).item() / 299


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"batch_size": 5}, {"accumulate": 4}, {"dropout": 0.5}], ids=str)
def test_the_validation_loss_is_that_of_transformers_over_all_held_out_tokens(
    trainer_of, never, in_transformers, other_text, changes
):
    """Before anything is learnt: the learning rate is next to nothing."""
    trainer = trainer_of(validate=other_text, steps=1, learning_rate=1e-12, **changes)
    outcome = trainer.train(never)
    expected = transformers_validation_loss(in_transformers, other_text)
    assert outcome.validation_loss == pytest.approx(expected, abs=1e-5)
    assert trainer.run.metrics("validation")[0]["loss"] == outcome.validation_loss


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_first_loss_is_that_of_transformers_and_changes_nothing(make_network, text, in_transformers, dropout):
    network = make_network(dropout)
    batch, before = batch_at(text, 0, 0, 2), torch.get_rng_state()
    logits_BTV = in_transformers.eval()(torch.from_numpy(batch.inputs_BT)).logits
    expected = F.cross_entropy(logits_BTV.transpose(1, 2), torch.from_numpy(batch.targets_BT)).item()
    assert first_loss(network, text) == pytest.approx(expected, abs=1e-5)
    assert torch.equal(torch.get_rng_state(), before)


def test_new_text_that_is_random_is_never_foreseen(trainer_of, never, other_text):
    """320 tokens drawn evenly: no model can do better on new ones than log 320."""
    assert trainer_of(validate=other_text).train(never).validation_loss > math.log(320)


# --- events ---


def test_without_held_out_text_nothing_is_validated(trainer_of, never):
    trainer = trainer_of()
    assert trainer.train(never).validation_loss is None
    assert trainer.run.metrics("validation") == []
    assert trainer.run.best() is None


def test_events_come_as_often_as_configured(trainer_of, never, other_text):
    every = {"print_every": 4, "validate_every": 5, "save_every": 6, "sample_every": 7}
    trainer = trainer_of(validate=other_text, sample=str, steps=13, **every)
    trainer.train(never)
    assert steps_of(trainer.run, "train") == [1, 4, 8, 10, 12, 13]
    assert steps_of(trainer.run, "validation") == [5, 6, 10, 12, 13]
    assert steps_of(trainer.run, "save") == [6, 12, 13]
    assert steps_of(trainer.run, "sample") == [7, 13]


def test_a_train_event_tells_tokens_rate_and_speed(trainer_of, never):
    trainer = trainer_of()
    trainer.train(never)
    last = trainer.run.metrics("train")[-1]
    assert last["tokens"] == 6 * 4 * 16
    assert last["lr"] == pytest.approx(1e-3 * (0.1 + 0.45 * (1 + math.cos(math.pi * 3 / 4))))
    assert last["grad_norm"] > 0
    assert last["tokens_per_second"] > 0


def test_reports_come_at_the_first_and_tenth_and_every_printed_step(trainer_of, never):
    reports = []
    trainer_of(steps=14, print_every=4, report=reports.append).train(never)
    told = [(report.done, report.total, report.unit) for report in reports]
    assert told == [(step, 14, "step") for step in (0, 1, 4, 8, 10, 12, 14)], "the first says that it begins"


def test_a_report_of_the_last_step_comes_after_its_snapshot(trainer_of, never):
    saved = []
    trainer = trainer_of(report=lambda progress: saved.append(trainer.run.latest()))
    trainer.train(never)
    assert saved == [None] * 6 + [6]


def test_whoever_listens_hears_every_event(trainer_of, never, other_text):
    heard = []
    trainer = trainer_of(validate=other_text, hear=heard.append, sample=str)
    trainer.train(never)
    assert len(heard) > 6
    for kind in ("train", "validation", "sample", "save"):
        assert [event for event in heard if event["event"] == kind] == trainer.run.metrics(kind)


# --- samples ---


def test_a_sample_is_written_without_dropout_and_learning_goes_on_with_it(trainer_of, never, make_network):
    network, modes = make_network(0.5), []

    def sample(step):
        modes.append(network.training)
        return f"after {step}"

    trainer_of(network=network, dropout=0.5, sample=sample).train(never)
    assert modes == [False, False]
    assert network.training


def test_samples_are_kept_as_events(trainer_of, never):
    trainer = trainer_of(sample=lambda step: f"after {step}: 床前")
    trainer.train(never)
    assert [entry["text"] for entry in trainer.run.metrics("sample")] == ["after 3: 床前", "after 6: 床前"]


def test_a_sample_every_0_steps_is_none(trainer_of, never):
    trainer = trainer_of(sample=str, sample_every=0)
    trainer.train(never)
    assert trainer.run.metrics("sample") == []


# --- the best, and when to stop ---

# A random text is learnt by heart, so the loss on another one rises in the end.
BY_HEART = {"steps": 16, "learning_rate": 1e-2, "keep": 99}


def validation_losses(run):
    return {entry["step"]: entry["loss"] for entry in run.metrics("validation")}


@pytest.mark.slow
def test_the_best_step_is_the_one_with_the_lowest_validation_loss(trainer_of, never, other_text):
    trainer = trainer_of(validate=other_text, **BY_HEART, validate_every=2, save_every=2, patience=0)
    trainer.train(never)
    losses = validation_losses(trainer.run)
    assert trainer.run.best() == min(losses, key=losses.get)
    assert trainer.run.best() != 16, "the example must tell best from latest"


@pytest.mark.slow
def test_the_best_of_those_that_were_saved_counts(trainer_of, never, other_text):
    """Measured at every step, saved at every fourth."""
    trainer = trainer_of(validate=other_text, **BY_HEART, validate_every=1, save_every=4, patience=0)
    trainer.train(never)
    losses = validation_losses(trainer.run)
    saved = {step: loss for step, loss in losses.items() if step % 4 == 0}
    assert list(losses) == list(range(1, 17))
    assert trainer.run.best() == min(saved, key=saved.get)
    assert min(losses, key=losses.get) not in saved, "the example must tell saved from unsaved"


def test_the_first_that_is_saved_is_the_best_so_far_however_good_the_ones_were_that_were_not(
    trainer_of, never, other_text
):
    trainer = trainer_of(validate=other_text, **BY_HEART | {"steps": 2}, validate_every=1, save_every=2)
    trainer.train(never)
    losses = validation_losses(trainer.run)
    assert losses[1] < losses[2], "the example must have a better one before"
    assert trainer.run.best() == 2


@pytest.mark.slow
@pytest.mark.parametrize("patience", [1, 3])
def test_it_stops_when_the_loss_has_not_fallen_so_many_times(trainer_of, never, other_text, patience):
    changes = BY_HEART | {"validate_every": 1, "save_every": 5, "print_every": 5, "patience": patience, "steps": 60}
    trainer = trainer_of(validate=other_text, **changes)
    outcome = trainer.train(never)
    losses = validation_losses(trainer.run)
    assert outcome.stopped_early
    assert not outcome.interrupted
    assert outcome.step == min(losses, key=losses.get) + patience < 60
    assert trainer.run.latest() == steps_of(trainer.run, "train")[-1] == outcome.step


@pytest.mark.slow
def test_a_patience_of_0_never_stops(trainer_of, never, other_text):
    outcome = trainer_of(validate=other_text, **BY_HEART, validate_every=1, patience=0).train(never)
    assert (outcome.step, outcome.stopped_early) == (16, False)
