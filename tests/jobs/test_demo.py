from dataclasses import replace

import pytest

from gpt2kit.jobs import demo as demo_module
from gpt2kit.jobs.demo import Demo, demo, embedded_texts
from gpt2kit.jobs.finetune import Finetuned


@pytest.fixture
def three_steps(here, monkeypatch):
    """The demo, but with three steps of training."""
    short = replace(demo_module.TRAINING, steps=3, batch_size=2, validate_every=3)
    monkeypatch.setattr(demo_module, "TRAINING", short)


@pytest.mark.slow
def test_the_demo_ends_with_samples_and_a_measure_and_is_found_again(three_steps, here):
    first = demo()
    assert isinstance(first, Demo)
    assert (first.run.step, first.run.new_steps) == (3, 3)
    assert len(first.samples) == 3
    assert all(sample.text for sample in first.samples)
    # Hardly trained, it cannot be far from the 512 equally likely tokens it began with.
    assert 150 < first.evaluation.perplexity < 512
    assert first.evaluation.bytes == (here / "models" / "demo" / "held-out.txt").stat().st_size
    again = demo()
    assert again.run.new_steps == 0
    assert again.samples == first.samples
    assert again.evaluation == first.evaluation


@pytest.mark.slow
def test_an_interrupted_demo_gives_the_unfinished_run(three_steps):
    outcome = demo(stop_asked=lambda: True)
    assert isinstance(outcome, Finetuned)
    assert (outcome.step, outcome.interrupted) == (1, True)


def test_the_texts_are_pythons_own_and_no_paragraph_is_told_twice():
    from pydoc_data.topics import topics

    learnt, held_out = (text.split("\n\n") for text in embedded_texts())
    assert set(learnt) | set(held_out) == {part for topic in topics.values() for part in topic.strip().split("\n\n")}
    assert len({*learnt, *held_out}) == len(learnt) + len(held_out)
    assert len(held_out) == pytest.approx(0.05 * len(learnt + held_out), abs=1)
