"""Which engine a model gets, with and without a compiler, and what is refused."""

import sys

import pytest

from gpt2kit.config.engine import EngineConfig
from gpt2kit.errors import ConfigError
from gpt2kit.formats import huggingface
from gpt2kit.generate import select
from gpt2kit.generate.engine import Row
from gpt2kit.generate.native_engine import NativeEngine, usable_cores
from gpt2kit.generate.packed import packed_weights
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.select import open_engine, preferred_engine, weight_bytes
from gpt2kit.generate.torch_engine import TorchEngine


@pytest.fixture
def not_built(monkeypatch):
    """As on a machine that had no compiler."""
    monkeypatch.setitem(sys.modules, "gpt2kit._native", None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("auto", NativeEngine), ("native", NativeEngine), ("torch", TorchEngine), ("reference", ReferenceEngine)],
)
def test_an_engine_is_chosen_by_name_and_auto_is_native_on_a_cpu(tiny_checkpoint, name, kind):
    engine = open_engine(tiny_checkpoint, EngineConfig(engine=name, device="cpu"), 2)
    assert isinstance(engine, kind)
    assert engine.name == ("native" if name == "auto" else name)


def test_without_a_compiler_torch_serves(tiny_checkpoint, not_built):
    assert isinstance(open_engine(tiny_checkpoint, EngineConfig(device="cpu"), 1), TorchEngine)


def test_without_a_compiler_and_torch_the_reference_serves_and_says_so(tiny_checkpoint, not_built, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.warns(UserWarning, match="C\\+\\+ compiler .*gpt2kit\\[train\\]"):
        assert isinstance(open_engine(tiny_checkpoint, EngineConfig(), 1), ReferenceEngine)


def test_asked_for_by_name_what_was_not_built_is_an_error_with_the_remedy(tiny_checkpoint, not_built):
    with pytest.raises(ConfigError, match="apt-get install g\\+\\+"):
        open_engine(tiny_checkpoint, EngineConfig(engine="native"), 1)


def test_a_gpu_is_torchs(monkeypatch):
    assert preferred_engine(EngineConfig(device="cuda")) == "torch"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert preferred_engine(EngineConfig(device="cuda")) == "native"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "torch"),
        ({"precision": "fp32"}, "torch"),
        ({"precision": "int8"}, "native"),
        ({"kv_cache": "bf16"}, "native"),
        ({"device": "cpu"}, "native"),
    ],
)
def test_on_a_gpus_machine_what_only_native_has_is_natives(settings, expected, monkeypatch):
    monkeypatch.setattr(select, "NVIDIA_DRIVER", "libc.so.6")  # one that loads
    assert preferred_engine(EngineConfig(**settings)) == expected


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"engine": "native", "device": "cuda"},
            "the native engine runs on the cpu only, not on cuda; use engine torch",
        ),
        ({"engine": "reference", "device": "mps"}, "the reference engine runs on the cpu only"),
        ({"engine": "torch", "precision": "int8"}, "the torch engine computes in fp32; int8 is for the native engine"),
        ({"engine": "reference", "kv_cache": "bf16"}, "computes in fp32; a cache in bf16 is for the native engine"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(tiny_checkpoint, settings, told):
    with pytest.raises(ConfigError, match=told):
        open_engine(tiny_checkpoint, EngineConfig(**settings), 1)


@pytest.mark.parametrize(
    "settings",
    [{"threads": 0}, {"threads": -1}, {"precision": "int3"}, {"engine": "turbo"}, {"kv_cache": "int8"}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        EngineConfig(**settings)


@pytest.mark.parametrize("engine", ["native", "torch", "reference"])
def test_an_instruction_set_that_is_not_here_is_refused_by_name(engine, tiny_checkpoint, monkeypatch):
    monkeypatch.setenv("GPT2KIT_ISA", "altivec")
    with pytest.raises(ConfigError, match="GPT2KIT_ISA=altivec: not here; this machine has portable"):
        open_engine(tiny_checkpoint, EngineConfig(engine=engine), 1)


def test_threads_are_those_asked_for_or_as_many_as_cores_or_one_for_a_tiny_model(tiny_checkpoint, make_checkpoint):
    def threads(checkpoint, **settings):
        return open_engine(checkpoint, EngineConfig(engine="native", **settings), 1).threads

    assert threads(tiny_checkpoint, threads=3) == 3
    assert threads(tiny_checkpoint) == 1
    assert threads(make_checkpoint(4000, width=256)) == usable_cores()


@pytest.mark.parametrize(("directory", "expected"), [("hf-halfprec/bf16", "bf16"), ("hf-halfprec/fp16", "fp32")])
def test_a_model_that_was_saved_in_bf16_is_run_in_it(golden, directory, expected):
    engine = open_engine(huggingface.read(golden / directory), EngineConfig(engine="native"), 1)
    assert engine.precision == expected


def test_a_cache_in_bf16_rounds_what_is_remembered(tiny_checkpoint):
    rows = [Row(0, list(range(40)), "none")], [Row(0, [40], "last")]

    def logits(kv_cache):
        engine = open_engine(tiny_checkpoint, EngineConfig(engine="native", kv_cache=kv_cache), 1)
        return [engine.step(step) for step in rows][-1]

    exact, rounded = logits("fp32"), logits("bf16")
    assert (exact != rounded).any()
    assert abs(exact - rounded).max() < abs(exact).max() / 50  # 8 bits a number


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_what_weights_will_take_is_known_before_they_are_packed(make_checkpoint, precision):
    checkpoint = make_checkpoint(640, width=128, inner_width=256)
    arrays = packed_weights(checkpoint, precision, 1)
    expected = sum(array.nbytes for name, array in arrays.items() if name != "wte.bias")  # zeros
    assert weight_bytes(checkpoint, EngineConfig(engine="native", precision=precision)) == expected
    assert weight_bytes(checkpoint, EngineConfig(engine="torch")) == 4 * checkpoint.parameter_count()


@pytest.mark.parametrize(("directory", "expected"), [("hf-halfprec/bf16", "bf16"), ("hf-halfprec/fp16", "fp32")])
def test_auto_takes_the_memory_of_what_it_chooses(golden, directory, expected):
    checkpoint = huggingface.read(golden / directory)
    auto, named = (EngineConfig(engine="native", precision=precision) for precision in ("auto", expected))
    assert weight_bytes(checkpoint, auto) == weight_bytes(checkpoint, named)
