import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError
from gpt2kit.formats import huggingface, openai
from gpt2kit.progress import silent

BUNDLE = ("model.ckpt.index", "model.ckpt.data-00000-of-00001")


@pytest.mark.parametrize("name", ["openai-tiny", "openai-deep"])
def test_what_openais_code_saved_is_written_again_bit_by_bit(shared, tmp_path, name):
    original = shared / "fixtures" / name
    openai.write(openai.read(original), tmp_path / "copy", silent)
    for file in (*BUNDLE, "encoder.json", "vocab.bpe"):
        assert (tmp_path / "copy" / file).read_bytes() == (original / file).read_bytes(), file
    assert json.loads((tmp_path / "copy/hparams.json").read_bytes()) == json.loads(
        (original / "hparams.json").read_bytes()
    )


def test_hparams_and_checkpoint_are_the_published_files(tmp_path):
    config = ModelConfig(vocab_size=50257, window=1024, width=768, layers=12, heads=12, inner_width=3072)
    openai.write(Checkpoint(config, {}, {}, "here"), tmp_path, silent)
    # How OpenAI's 124M's begin and end.
    hashes = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("hparams.json", "checkpoint")]
    assert [(text[:8], text[-4:]) for text in hashes] == [("d9d56e41", "0318"), ("dd1b025d", "b9cb")]


def test_a_model_of_hugging_face_comes_back_as_it_was(golden, tmp_path):
    original = huggingface.read(golden / "hf-safetensors")
    openai.write(original, tmp_path, silent)
    copy = openai.read(tmp_path)
    assert copy.config == original.config
    for name, tensor in original.tensors.items():
        np.testing.assert_array_equal(copy.tensors[name].read(), tensor.read())


def test_its_vocabulary_gets_openais_names(golden, tmp_path):
    openai.write(huggingface.read(golden / "hf-safetensors"), tmp_path, silent)
    for ours, theirs in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        assert (tmp_path / theirs).read_bytes() == (golden / "hf-safetensors" / ours).read_bytes()


def test_a_model_without_a_tokenizer_is_written_without(golden, tmp_path):
    openai.write(replace(openai.read(golden / "openai-tiny"), tokenizer_files={}), tmp_path, silent)
    assert openai.read(tmp_path).tokenizer_files == {}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tied_head": False}, "a head of its own"),
        ({"activation": "gelu_exact"}, "the activation gelu_exact"),
        ({"inner_width": 100}, "an inner width of 100"),
        ({"norm_epsilon": 1e-6}, "a norm_epsilon of 1e-06"),
        ({"scale_attention": False}, "not scaled"),
        ({"scale_attention_by_layer": True}, "scaled by layer"),
        ({"architecture": "gpt2-ml"}, "the architecture gpt2-ml"),
    ],
)
def test_what_openais_code_cannot_run_is_refused_before_anything_is_written(golden, tmp_path, changes, match):
    original = openai.read(golden / "openai-tiny")
    with pytest.raises(ConfigError, match=f"OpenAI's format cannot hold .*{match}.*; the format safetensors can"):
        openai.write(replace(original, config=replace(original.config, **changes)), tmp_path / "new", silent)
    assert not (tmp_path / "new").exists()


def test_what_stands_beside_the_weights_can_be_written_alone(shared, tmp_path):
    """OpenAI's own three files, as they came: the numbers equal, the vocabulary to the byte."""
    openai_tiny = shared / "fixtures" / "openai-tiny"
    source = next(openai_tiny.rglob("hparams.json")).parent
    openai.write_surroundings(openai.read(source), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["encoder.json", "hparams.json", "vocab.bpe"]
    for name in ("hparams.json", "encoder.json"):
        assert json.loads((tmp_path / "run" / name).read_bytes()) == json.loads((source / name).read_bytes())
    assert (tmp_path / "run" / "vocab.bpe").read_bytes() == (source / "vocab.bpe").read_bytes()
