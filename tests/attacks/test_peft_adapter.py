"""Adapters that lie: damaged files, settings of any kind, expressions that take for ever, tensors larger than files."""

import json
import shutil
import time
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2kit.errors import FormatError
from gpt2kit.formats.peft_adapter import with_adapter

FOR_EVER = r"(\w+)*x\.(\w+)*x\.(a|a|a)*$"
ENDLESS_CHOICES = "(|a)" * 60


@pytest.fixture
def place(golden, tmp_path):
    """A copy of an adapter with settings of every kind."""
    return shutil.copytree(golden / "peft" / "patterns", tmp_path / "adapter")


@pytest.fixture
def lie(place):
    """lie(**settings): the adapter with these in its adapter_config.json."""

    def changed(**settings):
        file = place / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | settings), "utf-8")
        return place

    return changed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_file(tiny_checkpoint, place, survives, name):
    file = place / name
    original = file.read_bytes()

    def open_and_read(content):
        file.write_bytes(content)
        for tensor in with_adapter(tiny_checkpoint, place).tensors.values():
            assert tensor.read().shape == tensor.shape

    outcomes = survives(original, open_and_read)
    assert outcomes["FormatError"] > 0
    assert outcomes["accepted"] > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"r": value} for value in (0, -1, True, "8", 2.5, None, [], 10**300, float("nan"))
    ] + [{"lora_alpha": value} for value in ("16", True, None, {}, 10**300, float("nan"), float("inf"))]
    + [{"target_modules": value} for value in (7, {"c_attn": 1}, [["c_attn"]], [None])]
    + [{"modules_to_save": value} for value in (7, "wte", [7])]
    + [{"exclude_modules": value} for value in (7, [7])]
    + [{"layers_to_transform": value} for value in ("1", [1.5], {}, [[1]], True)]
    + [{"rank_pattern": value} for value in ([1], "c_attn", {"c_attn": "5"}, {"c_attn": 0}, {"c_attn": True})]
    + [{"alpha_pattern": value} for value in ([1], "c_attn", {"c_attn": "5"}, {"c_attn": float("nan")})]
    + [{"peft_type": value} for value in (None, [], "lora", 10**300)]
    + [{"init_lora_weights": value} for value in ([], {}, "../../x", 7)],
    ids=str,
)  # fmt: skip
def test_settings_of_another_kind_are_named(tiny_checkpoint, lie, settings):
    with pytest.raises(FormatError, match=next(iter(settings))) as refused:
        with_adapter(tiny_checkpoint, lie(**settings))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 10**6, b'{"peft_type"', b"\xff", b"1" * 5000])
def test_what_is_no_object_is_refused(tiny_checkpoint, place, content):
    (place / "adapter_config.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"adapter_config\.json"):
        with_adapter(tiny_checkpoint, place)


@pytest.mark.parametrize("setting", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize(
    "pattern", [FOR_EVER, ENDLESS_CHOICES, ".*" * 20, r"(a)\1", "(?=a)", "[", "a" * 10**5 + "*", "(" * 150]
)
def test_an_expression_that_could_take_for_ever_is_not_matched(tiny_checkpoint, lie, setting, pattern):
    began = time.monotonic()
    with pytest.raises(FormatError, match=rf"{setting}: '.* is not matched, for it may take for ever"):
        with_adapter(tiny_checkpoint, lie(**{setting: {pattern: 3}}))
    assert time.monotonic() - began < 2


def test_the_worst_expressions_that_are_matched_take_no_time(tiny_checkpoint, lie):
    worst = {f"(.|..)(.|..)(.|..).*.*{number}": 1 for number in range(50)}
    began = time.monotonic()
    with_adapter(tiny_checkpoint, lie(alpha_pattern=worst))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("setting", ["target_modules", "modules_to_save", "rank_pattern", "alpha_pattern"])
def test_lists_without_end_are_refused(tiny_checkpoint, lie, setting):
    names = [f"x{number}" for number in range(10**5)]
    began = time.monotonic()
    with pytest.raises(FormatError, match=f"{setting} is .*expected"):
        with_adapter(tiny_checkpoint, lie(**{setting: dict.fromkeys(names, 1) if "pattern" in setting else names}))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "name", ["\x1b[2J", "x" * 10**6, "base_model.model." + "transformer." * 10**5 + "lora_A.weight"]
)
def test_odd_names_are_not_shown(tiny_checkpoint, place, name):
    file = place / "adapter_model.safetensors"
    save_file(load_file(file) | {name: torch.ones(1)}, file)
    with pytest.raises(FormatError, match="a tensor is called '") as refused:
        with_adapter(tiny_checkpoint, place)
    assert len(str(refused.value)) < 500
    assert str(refused.value).isprintable()


def test_targets_that_would_take_for_ever_are_not_matched(tiny_checkpoint, lie):
    began = time.monotonic()
    with_adapter(tiny_checkpoint, lie(target_modules=FOR_EVER))
    assert time.monotonic() - began < 2


def test_a_rank_beyond_its_file_takes_no_memory(tiny_checkpoint, lie):
    place = lie(r=10**8, rank_pattern={})
    tensors = load_file(place / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        if "lora_A" in name:
            tensors[name] = torch.ones(1).expand(10**8, tensor.shape[1])
        if "lora_B" in name:
            tensors[name] = torch.ones(1).expand(tensor.shape[0], 10**8)
    (place / "adapter_model.safetensors").unlink()
    torch.save(tensors, place / "adapter_model.bin")
    tracemalloc.start()
    with pytest.raises(FormatError, match="repeats a storage of 1 elements too often"):
        with_adapter(tiny_checkpoint, place)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("case", ["pickle_malicious_zip", "pickle_malicious_legacy", "pickle_malicious_raw"])
def test_code_in_pickles_is_not_run(tiny_checkpoint, place, shared, tmp_path, monkeypatch, case):
    (pickle,) = (shared / "fixtures" / "bad" / case).glob("*.bin")
    (place / "adapter_model.safetensors").unlink()
    shutil.copy(pickle, place / "adapter_model.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError):
        with_adapter(tiny_checkpoint, place)
    assert not list(tmp_path.rglob("*PWNED*"))
