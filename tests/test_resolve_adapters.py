"""BASE+ADAPTER: what is opened where a model is named together with an adapter of PEFT."""

import shutil
from pathlib import Path

import pytest

from gpt2kit.errors import FormatError, ModelNotFound
from gpt2kit.resolve import adapted, open_checkpoint
from gpt2kit.runs import Run


def put(golden, place):
    shutil.copytree(golden / "hf-safetensors", place, ignore=shutil.ignore_patterns("*.npz", "sharded", "base*"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, golden):
    """A working directory with the models `mine` and `124M`, the run `run1`, and two adapters."""
    monkeypatch.chdir(tmp_path)
    for place in ("mine", "models/124M", "checkpoint/run1"):
        put(golden, tmp_path / place)
    run = Run.named("run1")
    for step in (100, 200):
        with run.saving(step, {}, best=False, keep=9) as directory:
            shutil.copy(golden / "hf-safetensors" / "model.safetensors", directory)
    shutil.copytree(golden / "peft" / "c_attn", tmp_path / "poet")
    shutil.copytree(golden / "peft" / "one_layer", tmp_path / "sub" / "one+two")
    return tmp_path


@pytest.mark.parametrize(
    ("ref", "base"),
    [
        ("mine+poet", "mine"),
        ("./mine+./poet", "mine"),
        ("mine/model.safetensors+poet", "mine/model.safetensors"),
        ("run1+poet", "run1"),
        ("run1@100+poet", "run1@100"),
        ("124M+poet", "124M"),
        (Path("mine+poet"), "mine"),
    ],
)
def test_whatever_has_a_name_may_have_an_adapter_behind_it(ref, base):
    checkpoint, plain = open_checkpoint(ref), open_checkpoint(base)
    assert (checkpoint.base_origin, checkpoint.step) == (plain.origin, plain.step)
    assert [Path(adapter) for adapter in checkpoint.adapters] == [Path("poet")]
    changed = [name for name in plain.tensors if (checkpoint.tensors[name].read() != plain.tensors[name].read()).any()]
    assert changed == [f"h.{layer}.attn.c_attn.weight" for layer in range(3)]


def test_adapters_may_follow_each_other_and_have_a_plus_in_their_names(here, golden):
    assert open_checkpoint("mine+poet+sub/one+two").adapters == ("poet", "sub/one+two")


def test_an_origin_with_adapters_opens_again(here, golden):
    first = open_checkpoint("mine+poet+sub/one+two")
    assert open_checkpoint(first.origin).origin == first.origin


def test_a_path_of_the_whole_name_wins(here, golden):
    put(golden, here / "mine+poet")
    assert open_checkpoint("mine+poet").adapters == ()
    checkpoint = open_checkpoint(adapted("mine", [Path("poet")]))
    assert (checkpoint.base_origin, checkpoint.adapters) == ("mine", (str(here / "poet"),))
    assert adapted("mine", []) == "mine"


def test_several_adapters_are_added_one_after_another(here):
    both = open_checkpoint(adapted("mine", [Path("poet"), Path("sub/one+two")]))
    assert both.adapters == (str(here / "poet"), str(here / "sub" / "one+two"))


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("mine+poem", "no model 'mine.poem'.* no adapter of PEFT is at 'poem'"),
        ("mine+", "no model 'mine.'"),
        ("+poet", "no model '.poet'"),
        ("yours+poet", "no model 'yours': no such path"),
        ("mine+mine", "no adapter of PEFT is at 'mine'"),
        ("mine+" + "a" * 5000, "no name of a model"),
        ("mine+a\0b", r"is at 'a.x00b'"),
    ],
)
def test_a_base_or_an_adapter_that_is_not_there_is_named(ref, told):
    with pytest.raises(ModelNotFound, match=told):
        open_checkpoint(ref)


def test_an_adapter_alone_is_no_model():
    for place in ("poet", "poet/adapter_model.safetensors", "poet/adapter_config.json"):
        with pytest.raises(FormatError, match=rf"^{place}: an adapter of PEFT, not a whole model; .* BASE\+poet$"):
            open_checkpoint(place)
    with pytest.raises(FormatError, match=r"^nowhere: no adapter of PEFT, which is a directory with adapter_config"):
        adapted("mine", [Path("poet"), Path("nowhere")])
