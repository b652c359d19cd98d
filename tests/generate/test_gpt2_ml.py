"""GPT2-ML writes: the tokens of its own code on every engine that takes it, by its own rules."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.config.engine import EngineConfig
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import ConfigError
from gpt2kit.formats import gpt2_ml
from gpt2kit.generate.engine import Row
from gpt2kit.generate.generator import Generator
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.select import open_engine, preferred_engine
from gpt2kit.generate.torch_engine import TorchEngine
from gpt2kit.tokenizer.open import open_tokenizer

SEPARATOR, PADDING = 102, 0


@pytest.fixture(scope="module")
def checkpoint(shared):
    return gpt2_ml.read(shared / "fixtures" / "gpt2ml")


@pytest.fixture(scope="module")
def expected(shared):
    return np.load(shared / "fixtures" / "gpt2ml" / "expected.npz")


@pytest.fixture(params=[ReferenceEngine, TorchEngine], ids=["reference", "torch"])
def engine(request, checkpoint):
    return request.param(checkpoint, slots=3)


@pytest.fixture
def written(checkpoint):
    """The ids that follow a prompt."""
    tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)

    def write(sampling, stop, prompt="今天"):
        generator = Generator(checkpoint, tokenizer, ReferenceEngine(checkpoint, slots=1))
        return generator.generate(prompt, sampling=sampling, stop=stop)[0]

    return write


# --- engines ---


def test_ids_one_at_a_time_have_the_logits_of_its_own_code(engine, expected):
    ids, expected_TV = expected["tokens_0"][0].tolist(), expected["logits_0"][0]
    for id, expected_V in zip(ids, expected_TV, strict=True):
        np.testing.assert_allclose(engine.step([Row(0, [id])])[0], expected_V, atol=1e-4, rtol=0)


def test_rows_side_by_side_have_the_logits_of_its_own_code(engine, expected):
    one, other = expected["tokens_1"].tolist()
    found_TV = engine.step([Row(2, other, "all"), Row(0, one, "all")])[:, expected["cols_1"]]
    np.testing.assert_allclose(found_TV, np.concatenate(expected["logits_cols_1"][::-1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("engine", [ReferenceEngine, TorchEngine], ids=["reference", "torch"])
def test_greedy_tokens_are_those_of_its_own_code(checkpoint, expected, engine):
    tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
    prompt, whole = expected["greedy_prompt"].tolist(), expected["greedy_tokens"][0].tolist()
    text = tokenizer.decode(prompt)
    generator = Generator(checkpoint, tokenizer, engine(checkpoint, slots=1))
    assert tokenizer.encode(text) == prompt, "the prompt can be spelled"
    stop = StopConfig(max_new_tokens=len(whole) - len(prompt), ignore_end=True)
    done = generator.generate(text, sampling=SamplingConfig(temperature=0), stop=stop)[0]
    assert [*prompt, *done.ids] == whole


def test_the_native_engine_leaves_it_to_torch(checkpoint):
    assert preferred_engine(EngineConfig(device="cpu"), checkpoint) == "torch"
    with pytest.raises(ConfigError, match="the native engine runs GPT-2 only, not gpt2-ml; use engine torch"):
        open_engine(checkpoint, EngineConfig(engine="native"), 1)


def test_without_torch_the_reference_serves_and_says_so(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.warns(UserWarning, match="does not run a GPT2-ML and torch is missing.*; get torch with: pip install"):
        assert isinstance(open_engine(checkpoint, EngineConfig(device="cpu"), 1), ReferenceEngine)


# --- its rules ---


def test_padding_is_never_chosen(written):
    sampling = SamplingConfig(temperature=0, logit_bias={PADDING: 1000.0})
    assert PADDING not in written(sampling, StopConfig(max_new_tokens=8)).ids


def test_what_crosses_top_p_is_left_out(written, checkpoint):
    """Of probabilities 0.73 and 0.27 the standard rule keeps both for a top_p of 0.9."""
    logits_V = ReferenceEngine(checkpoint, slots=1).step([Row(0, [687, 1646])])[0]
    bias = {id: float(wanted - logits_V[id]) for id, wanted in ((687, 200), (1646, 199))}
    chosen = [
        written(SamplingConfig(logit_bias=bias, top_p=0.9, seed=seed), StopConfig(max_new_tokens=1)).ids[0]
        for seed in range(20)
    ]
    assert set(chosen) == {687}


def test_its_end_token_ends_a_text(written):
    done = written(SamplingConfig(forced_ids=(687, SEPARATOR)), StopConfig(max_new_tokens=9))
    assert (done.ids, done.reason) == ((687,), "stop")


def test_an_end_before_the_minimum_is_a_token_like_others(written):
    forced = (SEPARATOR, 687, SEPARATOR, 1646)
    done = written(SamplingConfig(forced_ids=forced), StopConfig(max_new_tokens=9, min_new_tokens=2))
    assert (done.ids, done.text, done.reason) == ((SEPARATOR, 687), "[SEP]今", "stop")


def test_a_stop_id_before_the_minimum_is_a_token_like_others(written):
    forced = (545, 687, 545)
    done = written(SamplingConfig(forced_ids=forced), StopConfig(stop_ids=(545,), min_new_tokens=1))
    assert done.ids == (545, 687)


def test_rows_without_a_token_are_never_chosen(checkpoint):
    """The released model of 15 GB has two more rows than its vocabulary has tokens."""
    rows = np.pad(checkpoint.tensors["wte.weight"].read(), ((0, 2), (0, 0)))
    wider = replace(
        checkpoint,
        config=replace(checkpoint.config, vocab_size=8023),
        tensors={**checkpoint.tensors, "wte.weight": LazyTensor("wte.weight", "float32", rows.shape, lambda: rows)},
    )
    tokenizer = open_tokenizer(wider.tokenizer_files, wider.origin)
    generator = Generator(wider, tokenizer, ReferenceEngine(wider, slots=1))
    sampling = SamplingConfig(temperature=0, logit_bias={8021: 1000.0, 8022: 1000.0})
    done = generator.generate("今天", sampling=sampling, stop=StopConfig(max_new_tokens=5))[0]
    assert len(done.ids) == 5
    assert max(done.ids) < 8021
