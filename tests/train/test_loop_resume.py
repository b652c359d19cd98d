"""A run that was interrupted goes on as if nothing had been."""

import pytest
import torch
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

CLOCK = {"time", "tokens_per_second"}
WAYS = {
    "plain": {},
    "accumulate": {"accumulate": 2},
    "recompute": {"recompute": True},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "dropout": {"dropout": 0.2},
    "muon": {"optimizer": "muon"},
    "sgd": {"optimizer": "sgd"},
    "noise": {"noise": 0.2, "accumulate": 2},
    "layers": {"only_train_transformer_layers": True, "accumulate": 2, "accumulate_as": "sum"},
    "in backward": {"step_in_backward": True, "clip_norm": 0.0},
    "all at once": {"accumulate": 2, "recompute": True, "precision": "fp16", "dropout": 0.2, "optimizer": "muon"},
}
EVENTS = ("train", "validation", "sample", "save", "skip")


def files(run, step):
    """Weights and moments of a step, as the safetensors library reads them."""
    directory = run.step_directory(step)
    loaded = {name: load_file(directory / f"{name}.safetensors") for name in ("model", "optimizer")}
    return {f"{kind} {name}": values.tobytes() for kind, tensors in loaded.items() for name, values in tensors.items()}


def events(run, kinds=EVENTS):
    """All that was logged but what the clock says."""
    return {
        kind: [{name: value for name, value in entry.items() if name not in CLOCK} for entry in run.metrics(kind)]
        for kind in kinds
    }


def pointers(run):
    return run.latest(), run.best(), run.steps()


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_12_steps_are_6_and_a_resume_and_6_bit_for_bit(trainer_of, resumed, never, stop_after, other_text, changes):
    settings = {"steps": 12, "save_every": 6, "validate_every": 4, "sample": str, "validate": other_text, **changes}
    straight, broken = trainer_of("straight", **settings), trainer_of("broken", **settings)
    straight.train(never)
    assert broken.train(stop_after(6)).interrupted
    resumed(broken.run, **settings).train(never)
    assert files(broken.run, 12) == files(straight.run, 12)
    assert events(broken.run) == events(straight.run)
    assert pointers(broken.run) == pointers(straight.run)


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_an_interrupt_between_snapshots_changes_no_weight(trainer_of, resumed, never, stop_after, changes):
    settings = {"steps": 8, "save_every": 8, **changes}
    straight, broken = trainer_of("straight", **settings), trainer_of("broken", **settings)
    straight.train(never)
    for done in (3, 5):
        trainer = broken if done == 3 else resumed(broken.run, **settings)
        assert trainer.train(stop_after(3 if done == 3 else 2)).step == done
    resumed(broken.run, **settings).train(never)
    assert files(broken.run, 8) == files(straight.run, 8)
    assert events(broken.run, ["train", "skip"]) == events(straight.run, ["train", "skip"])


@pytest.mark.slow
def test_100_steps_are_50_and_a_resume_and_50_bit_for_bit(trainer_of, resumed, never, stop_after, other_text):
    settings = {"steps": 100, "save_every": 50, "validate_every": 10, "validate": other_text, "patience": 0}
    straight, broken = trainer_of("straight", **settings), trainer_of("broken", **settings)
    straight.train(never)
    broken.train(stop_after(50))
    resumed(broken.run, **settings).train(never)
    assert files(broken.run, 100) == files(straight.run, 100)
    assert events(broken.run) == events(straight.run)


def test_what_was_learnt_after_the_snapshot_is_forgotten(trainer_of, resumed, never, stop_after, other_text):
    """A crash: nothing was saved after step 4 of 8, and the next run takes the same way again."""
    settings = {"steps": 8, "save_every": 4, "validate": other_text}
    straight, broken = trainer_of("straight", **settings), trainer_of("broken", **settings)
    straight.train(never)

    def crash():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.train(stop_after(7, crash))
    assert len(broken.run.metrics("train")) == 6
    resumed(broken.run, **settings).train(never)
    assert files(broken.run, 8) == files(straight.run, 8)
    assert events(broken.run) == events(straight.run)


def test_a_resume_keeps_the_scale_of_the_loss_and_what_was_skipped(trainer_of, resumed, never, stop_after):
    settings = {"steps": 12, "save_every": 12, "precision": "fp16"}
    straight, broken = trainer_of("straight", **settings), trainer_of("broken", **settings)
    for trainer in (straight, broken):
        trainer.scaler.update(2.0**24)
    straight.train(never)
    assert 2 < len(straight.run.metrics("skip")) < 12
    broken.train(stop_after(2))
    broken = resumed(broken.run, **settings)
    assert (broken.scaler.get_scale(), broken.updates) == (2.0**22, 0)
    broken.train(never)
    assert files(broken.run, 12) == files(straight.run, 12)
    assert events(broken.run, ["skip"]) == events(straight.run, ["skip"])


@pytest.mark.parametrize("before_the_end", [1, 9])
def test_best_and_patience_are_counted_over_a_resume(
    trainer_of, resumed, never, stop_after, other_text, before_the_end
):
    """The held-out text is random, so its loss rises when the other one is learnt by heart: best is the third last."""
    settings = {"steps": 60, "learning_rate": 1e-2, "validate_every": 1, "patience": 3, "validate": other_text}
    settings |= {"save_every": 1, "keep": 99}
    straight, broken = trainer_of("straight", **settings), trainer_of("broken", **settings)
    outcome = straight.train(never)
    assert outcome.stopped_early
    assert straight.run.best() == outcome.step - 3 > 9
    broken.train(stop_after(outcome.step - before_the_end))
    assert resumed(broken.run, **settings).train(never) == outcome
    assert pointers(broken.run) == pointers(straight.run)


def test_a_run_that_stopped_early_is_left_as_it_is_until_more_patience_is_asked(trainer_of, resumed, never, other_text):
    settings = {"steps": 60, "learning_rate": 1e-2, "validate_every": 1, "patience": 2, "validate": other_text}
    trainer = trainer_of(**settings)
    outcome = trainer.train(never)
    again = resumed(trainer.run, **settings)
    assert again.finished
    assert again.train(never) == outcome
    assert resumed(trainer.run, **settings | {"patience": 4}).train(never).step > outcome.step


def test_a_finished_run_is_left_as_it_is(trainer_of, resumed, never):
    trainer = trainer_of()
    outcome = trainer.train(never)
    before = files(trainer.run, 6), trainer.run.metrics_path.read_bytes()
    again = resumed(trainer.run)
    assert again.finished
    assert again.train(never) == outcome
    assert (files(trainer.run, 6), trainer.run.metrics_path.read_bytes()) == before


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_asking_to_stop_saves_the_step_just_done_and_tells_it(trainer_of, stop_after, stop):
    reports = []
    trainer = trainer_of(print_every=100, report=reports.append)
    outcome = trainer.train(stop_after(stop))
    assert (outcome.step, outcome.interrupted, trainer.run.latest()) == (stop, True, stop)
    assert reports[-1].done == stop
    trainer.run.check(stop)


def test_asking_to_stop_at_the_last_step_interrupts_nothing(trainer_of, stop_after):
    assert not trainer_of().train(stop_after(6)).interrupted


def test_a_network_goes_on_from_the_weights_that_were_saved(trainer_of, resumed, never):
    trainer = trainer_of()
    trainer.train(never)
    pairs = zip(trainer.network.parameters(), resumed(trainer.run).network.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
