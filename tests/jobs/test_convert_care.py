"""What a conversion must not do: replace, delete or lose what it was not asked to."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.jobs.compare import compare
from gpt2kit.jobs.convert import convert
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run

FORMATS = ("openai", "bin", "h5", "safetensors")


@pytest.fixture
def run1(here, golden):
    """A run with the steps 100 and 200; the older one is the best."""
    home = here / "checkpoint" / "run1"
    home.mkdir(parents=True)
    for name in ("config.json", "vocab.json", "merges.txt"):
        shutil.copy(golden / "hf-safetensors" / name, home)
    tensors = load_file(golden / "hf-safetensors" / "model.safetensors")
    run = Run.named("run1")
    for step, best in ((100, True), (200, False)):
        tensors["transformer.ln_f.bias"][:] = step
        with run.saving(step, {}, best=best, keep=9) as directory:
            save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return run


# --- places ---


def test_the_directory_one_is_in_is_not_replaced(here, model):
    with pytest.raises(ConfigError, match="is where you are, and a directory is replaced as a whole; name a new one"):
        convert(model, ".")


def test_a_run_is_no_place_for_a_conversion(run1, model):
    with pytest.raises(ConfigError, match=r"lies inside of the run .*run1, which tidies up; name a place outside"):
        convert(model, run1.directory / "steps" / "7")


def test_a_place_that_fills_meanwhile_is_left_as_it_is(here, model):
    def fill(progress):
        (here / "out").mkdir(exist_ok=True)
        (here / "out" / "thesis.txt").write_text("all of it", "utf-8")

    with pytest.raises(ConfigError, match="out: holds something already"):
        convert(model, "out", report=fill)
    assert [path.name for path in here.rglob("*")] == ["out", "thesis.txt"]


# --- runs ---


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(("ref", "step"), [("run1", 200), ("run1@best", 100), ("run1@200", 200)])
def test_a_run_is_converted_to_every_format(run1, ref, step, to):
    conversion = convert(ref, "out", to=to)
    assert np.unique(conversion.checkpoint.tensors["ln_f.bias"].read()).tolist() == [step]
    assert compare(ref, "out").nothing


def test_a_run_whose_newest_step_has_no_name_yet_is_its_newest_step(run1):
    (run1.directory / "latest").unlink()
    assert [open_checkpoint(ref).step for ref in ("run1", "run1@100")] == [200, 100]


# --- what changes meanwhile ---


def test_a_source_that_shrinks_is_told(here, golden):
    shutil.copytree(golden / "hf-safetensors", "source", ignore=shutil.ignore_patterns("sharded", "base*"))
    checkpoint = open_checkpoint("source")
    (here / "source" / "model.safetensors").write_bytes(b"")
    with pytest.raises(FormatError, match="gone or changed since it was opened"):
        convert(checkpoint, "out")


# --- vocabularies ---


def with_files(checkpoint, **files):
    return replace(checkpoint, tokenizer_files={name.replace("_json", ".json"): text for name, text in files.items()})


def test_special_tokens_that_openais_encoder_does_not_know_are_not_made_plain(here, tiny_checkpoint):
    files = tiny_checkpoint.tokenizer_files
    added = json.dumps({"<|pad|>": 319, "<|endoftext|>": 318}).encode()
    padded = replace(tiny_checkpoint, tokenizer_files={**files, "added_tokens.json": added})
    ids = json.loads(files["vocab.json"])
    swapped = json.dumps({token: id for token, id in ids.items() if id < 318}).encode()
    merges = b"\n".join(files["merges.txt"].split(b"\n")[:-2]) + b"\n"
    padded.tokenizer_files.update({"vocab.json": swapped, "merges.txt": merges})
    padded.tokenizer_files.pop("tokenizer.json")
    with pytest.raises(ConfigError, match=r"no special token but <\|endoftext\|>, the vocabulary has <\|pad\|>"):
        convert(padded, "out", to="openai")
    assert compare(padded, convert(padded, "out", to="bin").checkpoint).vocabulary is None


def test_a_vocabulary_larger_than_the_model_does_not_stop_a_conversion(here, golden, tiny_checkpoint):
    small = replace(tiny_checkpoint.config, vocab_size=100)
    tensors = dict(tiny_checkpoint.tensors)
    rows = tensors["wte.weight"].read()[:100]
    tensors["wte.weight"] = LazyTensor("wte.weight", "float32", rows.shape, lambda: rows)
    conversion = convert(replace(tiny_checkpoint, config=small, tensors=tensors), "out", dtype="float16")
    assert 0 <= conversion.equal_argmax <= 1


def test_a_vocabulary_of_another_kind_is_carried_along_unread(here, tiny_checkpoint):
    unigram = json.dumps({"model": {"type": "Unigram", "vocab": []}}).encode()
    other = replace(tiny_checkpoint, tokenizer_files={"tokenizer.json": unigram})
    with pytest.warns(UserWarning, match="the tokenizer's model is 'Unigram'.*; its files are copied as they are"):
        assert convert(other, "out").checkpoint.tokenizer_files == {"tokenizer.json": unigram}


def test_a_vocabulary_that_openais_code_cannot_read_is_left_behind_by_name(here, tiny_checkpoint):
    other = replace(tiny_checkpoint, tokenizer_files={"vocab.txt": b"[PAD]"})
    with pytest.warns(UserWarning, match=r"left behind, for OpenAI's code cannot read .*vocab\.txt"):
        convert(other, "out", to="openai", report=silent)
