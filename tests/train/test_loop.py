import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt2kit.config.training import TrainingConfig
from gpt2kit.data.batches import Corpus, batch_at
from gpt2kit.errors import ConfigError
from gpt2kit.progress import silent
from gpt2kit.runs import Run
from gpt2kit.train.loop import Trainer

SENTENCE = Corpus(np.array([72, 101, 108, 300, 111, 44, 280, 32, 119, 5, 6, 319], np.uint16), window=11)
TEXT = Corpus(np.random.default_rng(0).integers(0, 320, 400).astype(np.uint16), window=16)
HELD_OUT = Corpus(np.random.default_rng(1).integers(0, 320, 300).astype(np.uint16), window=16)
QUICK = TrainingConfig(steps=6, batch_size=4, warmup_steps=2, learning_rate=1e-3, print_every=1, validate_every=3)


@pytest.fixture
def train(network, tmp_path):
    """Train a new network; returns its run and the outcome."""

    def go(config=QUICK, learn=TEXT, validate=None, report=silent, stop_asked=lambda: False):
        run = Run(tmp_path / "run")
        run.directory.mkdir(exist_ok=True)
        outcome = Trainer(network, config, learn, validate, run, report).train(stop_asked)
        return run, outcome

    return go


def transformers_losses(model, config, learn):
    """The losses of the same windows under transformers' network and torch's AdamW, the rules written out."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), foreach=False)
    losses = []
    for step in range(config.steps):
        warm = [0.5, 1.0][step] if step < 2 else 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 2) / (config.steps - 2)))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warm
        batch = batch_at(learn, config.seed, step, config.batch_size)
        logits_BTV = model(torch.from_numpy(batch.inputs_BT)).logits
        loss = torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), torch.from_numpy(batch.targets_BT))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_is_that_of_transformers_and_torch(train, golden, transformers):
    plain = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = transformers.GPT2LMHeadModel.from_pretrained(golden / "hf-safetensors", **plain).train()
    expected = transformers_losses(model, QUICK, TEXT)
    run, _ = train()
    found = [entry["loss"] for entry in run.metrics("train")]
    assert len(found) == 6
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(expected[-1] - expected[0]) > 1e-2, "the weights must have moved"


def test_one_sentence_is_learnt_by_heart(train):
    by_heart = TrainingConfig(steps=60, batch_size=1, learning_rate=1e-2, warmup_steps=5)
    _, outcome = train(by_heart, SENTENCE)
    assert outcome.loss < 0.05


def test_a_model_that_knows_nothing_would_lose_the_logarithm_of_its_vocabulary(train):
    """320 tokens drawn evenly: no model can do better on new ones than log 320, and a fresh one does worse."""
    _, outcome = train(validate=HELD_OUT)
    assert outcome.validation_loss > math.log(320)


def test_the_validation_loss_is_transformers_on_the_same_windows(train, golden, transformers):
    """Before anything is learnt: the learning rate is next to nothing."""
    run, _ = train(replace(QUICK, steps=1, learning_rate=1e-12), validate=HELD_OUT)
    model = transformers.GPT2LMHeadModel.from_pretrained(golden / "hf-safetensors").eval()
    # 18 whole windows of 16 ids, each target the id one further.
    ids = torch.from_numpy(HELD_OUT.ids.astype(np.int64))
    inputs_BT, targets_BT = ids[:288].view(18, 16), ids[1:289].view(18, 16)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(inputs_BT).logits.flatten(0, 1), targets_BT.flatten()).item()
    assert run.metrics("validation")[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_without_held_out_text_nothing_is_validated(train):
    run, outcome = train()
    assert outcome.validation_loss is None
    assert run.metrics("validation") == []
    assert run.best() is None


def steps_of(run, event):
    return [entry["step"] for entry in run.metrics(event)]


def test_events_come_as_often_as_configured(train):
    run, _ = train(replace(QUICK, steps=12, print_every=5, validate_every=4, save_every=6), validate=HELD_OUT)
    assert steps_of(run, "train") == [1, 5, 10, 12]
    assert steps_of(run, "validation") == [4, 6, 8, 12]
    assert steps_of(run, "save") == [6, 12]


def test_a_train_event_tells_tokens_rate_and_speed(train):
    run, _ = train()
    last = run.metrics("train")[-1]
    assert last["tokens"] == 6 * 4 * 16
    assert last["lr"] == pytest.approx(1e-3 * (0.1 + 0.45 * (1 + math.cos(math.pi * 3 / 4))))
    assert last["grad_norm"] > 0
    assert last["tokens_per_second"] > 0


def test_reports_come_with_every_printed_step(train):
    reports = []
    train(replace(QUICK, print_every=4), report=reports.append)
    assert [(report.done, report.total, report.unit) for report in reports] == [(n, 6, "step") for n in (1, 4, 6)]


def gradient_norm(network):
    """Over all weights, of what the last step left."""
    return math.sqrt(sum(parameter.grad.norm().item() ** 2 for parameter in network.parameters()))


def test_gradients_are_cut_to_the_longest_allowed_and_told_uncut(train, network):
    run, _ = train(replace(QUICK, steps=1, clip_norm=1e-3))
    assert gradient_norm(network) == pytest.approx(1e-3, rel=1e-3)
    assert run.metrics("train")[0]["grad_norm"] > 0.1


def test_a_clip_of_0_does_not_cut(train, network):
    run, _ = train(replace(QUICK, steps=1, clip_norm=0))
    assert gradient_norm(network) == pytest.approx(run.metrics("train")[0]["grad_norm"], rel=1e-4)
    assert gradient_norm(network) > 1, "the default would cut this one"


def test_asking_to_stop_saves_the_step_just_done(train):
    asked = iter([False, False, True])
    run, outcome = train(stop_asked=lambda: next(asked))
    assert (outcome.step, outcome.interrupted, run.latest()) == (3, True, 3)


def test_the_best_step_is_the_one_with_the_lowest_validation_loss(train):
    """A random text is learnt by heart, so the loss on another one rises in the end."""
    config = replace(QUICK, steps=8, learning_rate=3e-2, validate_every=2, save_every=2, keep=9)
    run, _ = train(config, validate=HELD_OUT)
    losses = {entry["step"]: entry["loss"] for entry in run.metrics("validation")}
    assert run.best() == min(losses, key=losses.get)
    assert run.best() != 8, "the example must tell best from latest"


def poison_after(step, network):
    """Never asks to stop, but spoils the network after so many steps."""
    done = 0

    def stop_asked():
        nonlocal done
        done += 1
        if done == step:
            with torch.no_grad():
                network.ln_f.bias.fill_(float("nan"))
        return False

    return stop_asked


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_last_snapshot(train, network):
    with pytest.raises(ConfigError, match=r"^step 4: the loss is nan.*snapshot of step 2 is whole"):
        train(replace(QUICK, save_every=2), stop_asked=poison_after(3, network))


def test_a_loss_that_is_no_number_before_the_first_snapshot_promises_none(train, network):
    with pytest.raises(ConfigError, match=r"^step 2: the loss is nan") as caught:
        train(stop_asked=poison_after(1, network))
    assert "None" not in str(caught.value)
