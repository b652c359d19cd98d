"""GPT2-ML in every command: what is written, learnt, measured and compared with it."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.training import TrainingConfig
from gpt2kit.formats.tensor_bundle import open_tensors
from gpt2kit.jobs.compare import compare
from gpt2kit.jobs.encode import encode
from gpt2kit.jobs.evaluate import evaluate
from gpt2kit.jobs.finetune import finetune
from gpt2kit.jobs.generate import generate
from gpt2kit.jobs.load import load
from gpt2kit.resolve import open_checkpoint

POEM = "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n" * 20
STEPS = TrainingConfig(
    steps=20, batch_size=4, window=16, learning_rate=3e-3, warmup_steps=2, validate_every=10, save_every=5
)


@pytest.fixture
def mega(here, shared):
    """models/mega/, as it was downloaded."""
    place = shutil.copytree(shared / "fixtures" / "gpt2ml", here / "models" / "mega", copy_function=shutil.copyfile)
    (here / "poem.txt").write_text(POEM, encoding="utf-8")
    return place


@pytest.mark.parametrize("model", ["models/mega", "mega", "models/mega/model.ckpt-100000", "models/mega@100000"])
def test_text_is_written_by_any_of_its_names(mega, model):
    stop = StopConfig(max_new_tokens=5)
    *_, last = generate(model, "今天", sampling=SamplingConfig(seed=1), stop=stop, engine="reference")
    assert len(last.completion.ids) == 5


def test_equal_seeds_give_equal_texts_on_every_engine(mega):
    texts = set()
    for engine in ("auto", "torch", "reference"):
        with load("mega", engine=engine, device="cpu") as model:
            texts.add(model.generate("今天", sampling=SamplingConfig(seed=1))[0].text)
    assert len(texts) == 1


def test_a_text_may_be_longer_than_the_window(mega):
    with load("mega", device="cpu") as model:
        done = model.generate("今天", stop=StopConfig(max_new_tokens=100, ignore_end=True))[0]
    assert len(done.ids) == 100


def test_perplexity_is_measured(mega, here):
    assert math.log(evaluate("mega", here / "poem.txt", device="cpu").perplexity) == pytest.approx(9.6, abs=1)


# --- training ---


@pytest.mark.slow
def test_a_run_learns_and_is_a_model(mega, here):
    first = finetune(["poem.txt"], "mega", training=replace(STEPS, steps=1), run_name="first", device="cpu")
    last = finetune(["poem.txt"], "mega", training=STEPS, device="cpu")
    assert last.loss < first.loss - 1
    assert open_checkpoint("run1").config == open_checkpoint("mega").config
    assert json.loads((last.directory / "config.json").read_text("utf-8"))["model_type"] == "gpt2-ml"
    with load("run1", device="cpu") as model:
        assert model.generate("床前", stop=StopConfig(max_new_tokens=5))[0].ids


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(mega, here):
    asked = iter([False] * 9 + [True] * 100)
    finetune(["poem.txt"], "mega", training=STEPS, run_name="broken", device="cpu", stop_asked=lambda: next(asked))
    for name in ("broken", "whole"):
        finetune(["poem.txt"], "mega", training=STEPS, run_name=name, device="cpu")
    assert compare(open_checkpoint("broken"), open_checkpoint("whole")).bit_equal


@pytest.mark.slow
def test_encoded_text_is_learnt_by_its_layers_alone(mega, here):
    encode(["poem.txt"], "corpus", model="mega")
    only_layers = replace(STEPS, steps=2, only_train_transformer_layers=True)
    finetune(["corpus"], "mega", training=only_layers, device="cpu")
    before, after = open_checkpoint("mega").tensors, open_checkpoint("run1").tensors
    moved = {name for name in before if not np.array_equal(before[name].read(), after[name].read())}
    assert moved
    assert all(name.startswith("h.") for name in moved)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"recompute": True}, {"optimizer": "muon"}, {"dropout": 0.1}])
def test_other_ways_to_learn_work_too(mega, here, changes):
    outcome = finetune(["poem.txt"], "mega", training=replace(STEPS, steps=2, **changes), device="cpu")
    assert outcome.step == 2


def test_a_model_is_compared_with_itself(mega):
    found = compare(open_checkpoint("mega"), open_checkpoint("models/mega/model.ckpt-100000"))
    assert found.nothing
    weights = [name for name in open_tensors(mega / "model.ckpt-100000") if name.startswith("newslm/")]
    assert len(weights) == 4 + 16 * 3
