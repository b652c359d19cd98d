"""Texts of their own to measure on, and samples that a caller writes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.config.sampling import StopConfig
from gpt2kit.config.toml_file import read_toml
from gpt2kit.config.training import TrainingConfig
from gpt2kit.data.batches import Corpus
from gpt2kit.errors import ConfigError, DataError
from gpt2kit.generate.generator import Generator
from gpt2kit.jobs.finetune import finetune
from gpt2kit.jobs.load import load

pytestmark = pytest.mark.slow

SETTINGS = TrainingConfig(
    steps=4, batch_size=2, window=16, learning_rate=1e-3, warmup_steps=1, precision="fp32", validate_every=2,
    save_every=4, sample_every=0,
)  # fmt: skip
CATS, DOGS = "The cat sat on the mat. " * 60, "A dog ate the whole fog. " * 20


@pytest.fixture(autouse=True)
def texts(here):
    (here / "cats.txt").write_text(CATS, "utf-8")
    (here / "dogs.txt").write_text(DOGS, "utf-8")


def test_a_text_of_its_own_is_measured_on_and_never_learnt(model):
    plans, heard = [], []
    finetune(
        ["cats.txt"], model, validation=["dogs.txt"], training=SETTINGS, announce=plans.append, on_event=heard.append
    )
    tokenizer = load(model).tokenizer
    assert plans[0].tokens == len(tokenizer.encode(CATS)) + 1, "nothing is held out of it; the end token stands behind"
    assert plans[0].held_out == len(tokenizer.encode(DOGS)) + 1
    assert [event["step"] for event in heard if event["event"] == "validation"] == [2, 4]


def test_what_is_measured_is_the_loss_on_that_text(model):
    heard = []
    first = replace(SETTINGS, steps=1, validate_first=True)
    finetune(["cats.txt"], model, validation=["dogs.txt"], training=first, on_event=heard.append)
    found = next(event["loss"] for event in heard if event["event"] == "validation" and event["step"] == 0)
    with load(model, engine="reference") as generator:
        ids = [*generator.tokenizer.encode(DOGS), generator.tokenizer.end_id]
        losses = []
        for start in range(0, len(ids) - 1, 16):
            window = ids[start : start + 17]
            losses += [-logprob for logprob in _logprobs(generator, window)]
    assert found == pytest.approx(np.mean(losses), rel=1e-4)


def _logprobs(generator, ids):
    from gpt2kit.generate.score import score

    return score(generator.free_engine(), ids).logprobs_T[-(len(ids) - 1) :]


def test_the_run_knows_its_validation_text_when_it_goes_on(model):
    run = finetune(["cats.txt"], model, validation=["dogs.txt"], training=SETTINGS).directory
    assert read_toml(run / "run.toml")["validation"] == ["dogs.txt"]
    assert (run / "validation-tokens").is_dir()


def test_a_share_of_the_text_besides_is_one_too_many(model):
    with pytest.raises(ConfigError, match="texts to validate on and a validation_share"):
        finetune(["cats.txt"], model, validation=["dogs.txt"], training=replace(SETTINGS, validation_share=0.1))


def test_a_missing_validation_text_leaves_no_run(here, model):
    with pytest.raises(DataError, match=r"bats\.txt"):
        finetune(["cats.txt"], model, validation=["bats.txt"], training=SETTINGS)
    assert not (here / "checkpoint" / "run1").exists()


# --- samples ---


def test_a_caller_can_write_the_samples(model):
    heard, given = [], []

    def write(generator, learnt, step):
        given.append((generator, learnt))
        prompt = generator.tokenizer.decode(learnt.take(np.array([0, 1, 2])).tolist())
        completion = generator.generate(prompt, stop=StopConfig(max_new_tokens=3))[0]
        return None if step == 2 else f"{step}: {prompt}{completion.text}"

    training = replace(SETTINGS, sample_every=1)
    run = finetune(["cats.txt"], model, training=training, write_sample=write, on_event=heard.append)
    samples = [event for event in heard if event["event"] == "sample"]
    assert [event["step"] for event in samples] == [1, 3, 4], "nothing was due at step 2"
    assert all(event["text"].startswith(f"{event['step']}: The") for event in samples)
    assert all(isinstance(one, Generator) and isinstance(other, Corpus) for one, other in given)
    assert not (run.directory / "samples").exists(), "where they are kept is up to the caller"
    assert not Path("samples").exists()


def test_runs_may_lie_elsewhere(here, model):
    run = finetune(["cats.txt"], model, training=SETTINGS, run_name="mine", runs=here / "elsewhere")
    assert run.directory == here / "elsewhere" / "mine"
    assert not (here / "checkpoint").exists()
