from dataclasses import dataclass

import numpy as np
import pytest

from gpt2kit.config.training import Recipe
from gpt2kit.data.batches import Corpus
from gpt2kit.formats import huggingface
from gpt2kit.model.weights import to_network
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run
from gpt2kit.train.loop import Trainer

RECIPE = {"steps": 6, "batch_size": 4, "accumulate": 1, "window": 16, "learning_rate": 1e-3, "warmup_steps": 2}
RECIPE |= {"precision": "fp32", "validation_share": 0.1, "validate_every": 3, "save_every": 6, "sample_every": 3}
RECIPE |= {"print_every": 1}


@dataclass
class InMemory:
    """Encoded documents, as shards hold them."""

    ids: np.ndarray
    ends: np.ndarray

    @property
    def total(self):
        return self.ids.size

    def take(self, positions):
        return self.ids[positions].astype(np.int64)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """A second thread gains nothing on models this small, and costs much on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def network(make_network):
    """A network of its own for every test."""
    return make_network()


@pytest.fixture(scope="session")
def make_network(tiny_checkpoint):
    """As many networks as wanted, all with the same weights."""

    def make(dropout=0.0):
        return to_network(tiny_checkpoint.config, tiny_checkpoint.tensors, dropout)

    return make


@pytest.fixture(scope="session")
def corpus_of():
    """A text of these ids, one document, cut into windows."""

    def make(ids, window=16):
        ids = np.asarray(ids, np.uint16)
        return Corpus(InMemory(ids, np.array([ids.size])), np.array([[0, ids.size]]), window)

    return make


@pytest.fixture(scope="session")
def text(corpus_of):
    """400 ids at random, to learn from."""
    return corpus_of(np.random.default_rng(0).integers(0, 320, 400))


@pytest.fixture(scope="session")
def other_text(corpus_of):
    """300 other ids at random, to be measured on: 18 whole windows and a part."""
    return corpus_of(np.random.default_rng(1).integers(0, 320, 300))


@pytest.fixture(scope="session")
def recipe_of():
    """A short recipe with some settings changed."""

    def make(**changes):
        return Recipe(**{**RECIPE, **changes})

    return make


@pytest.fixture
def trainer_of(make_network, recipe_of, text, tiny_checkpoint, tmp_path):
    """Builds a trainer of the tiny model; `name` names its run, `network` takes the place of a new one."""

    def make(name="run", *, network=None, learn=text, validate=None, report=silent, sample=None, hear=list, **changes):
        recipe, run = recipe_of(**changes), Run(tmp_path / name)
        if not run.directory.exists():
            run.directory.mkdir()
            huggingface.write_surroundings(tiny_checkpoint, run.directory)
        network = network or make_network(recipe.dropout)
        return Trainer(network, recipe, learn, validate, run, report, on_event=hear, sample=sample)

    return make


@pytest.fixture
def resumed(trainer_of):
    """Builds a trainer that goes on from the newest snapshot of a run."""

    def make(run, **settings):
        step = run.latest()
        stored = open_checkpoint(f"{run.directory}@{step}")
        network = to_network(stored.config, stored.tensors, settings.get("dropout", 0.0))
        trainer = trainer_of(run.name, network=network, **settings)
        trainer.resume(step)
        return trainer

    return make


@pytest.fixture(scope="session")
def never():
    """Asks for no stop."""
    return lambda: False


@pytest.fixture(scope="session")
def stop_after():
    """Asks to stop after so many steps; on the way it may do something."""

    def make(steps, action=None):
        done = 0

        def stop_asked():
            nonlocal done
            done += 1
            if done == steps and action:
                action()
            return done == steps and action is None

        return stop_asked

    return make
