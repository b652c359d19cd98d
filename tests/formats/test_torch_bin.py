import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt2kit.checkpoint import LazyTensor, tensor_shapes
from gpt2kit.errors import ConfigError, FormatError, WeightMismatch
from gpt2kit.formats import huggingface, torch_bin
from gpt2kit.formats.registry import detect
from gpt2kit.progress import silent

# How the oldest files end names, and how all others do.
OLDEST = {".w": ".weight", ".g": ".weight", ".b": ".bias"}
VARIANTS = (
    "hf-bin/pytorch_model.bin",
    "hf-bin/base_model_noprefix/pytorch_model.bin",
    "hf-bin-2022/pytorch_model.bin",
    "hf-2019-bin/gpt2-pytorch_model.bin",
    "hf-2019-bin/gbw_names/pytorch_model.bin",
    "hf-2019-bin/lmhead_decoder/pytorch_model.bin",
)
DIRECTORIES = [place.rpartition("/")[0] for place in VARIANTS] + ["hf-bin/sharded"]


def of_torch(tensor):
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def canonical(stored):
    """torch's state dict by our names, without masks and head; spelled out here, apart from the code under test."""
    tensors = {}
    for name, tensor in stored.items():
        plain = name.removeprefix("transformer.")
        for old, new in OLDEST.items():
            plain = plain.removesuffix(old) + new if plain.endswith(old) else plain
        if not plain.startswith("lm_head.") and not plain.endswith((".attn.bias", ".attn.masked_bias")):
            tensors[plain] = of_torch(tensor)
    return tensors


def assert_equal_tensors(checkpoint, expected):
    assert set(checkpoint.tensors) == set(expected) == set(tensor_shapes(checkpoint.config))
    for name, tensor in checkpoint.tensors.items():
        assert tensor.read().dtype == expected[name].dtype
        np.testing.assert_array_equal(tensor.read(), expected[name], err_msg=name)


# --- reading ---


@pytest.mark.parametrize("place", VARIANTS)
def test_every_variant_is_read_as_torch_reads_it(golden, place):
    expected = canonical(torch.load(golden / place, weights_only=True))
    assert_equal_tensors(torch_bin.read(golden / place), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_stay_halves(shared, dtype):
    place = shared / "fixtures" / "hf-halfprec" / {"float16": "fp16_bin", "bfloat16": "bf16_bin"}[dtype]
    checkpoint = torch_bin.read(place)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {dtype}
    assert_equal_tensors(checkpoint, canonical(torch.load(place / "pytorch_model.bin", weights_only=True)))


def test_shards_are_put_together(golden):
    expected = canonical(torch.load(golden / "hf-bin" / "pytorch_model.bin", weights_only=True))
    assert_equal_tensors(torch_bin.read(golden / "hf-bin" / "sharded"), expected)


@pytest.mark.parametrize("place", DIRECTORIES)
def test_directories_are_known_and_read(golden, place):
    assert detect(golden / place).name == "bin"
    assert torch_bin.read(golden / place).config == huggingface.read_config(golden / place / "config.json")


def test_the_tokenizer_beside_it_is_found(golden):
    assert {"vocab.json", "merges.txt"} <= set(torch_bin.read(golden / "hf-bin").tokenizer_files)


def test_settings_and_tokenizer_may_lie_elsewhere(golden):
    alone = golden / "hf-bin" / "sharded"
    checkpoint = torch_bin.read(alone, model_dir=golden / "hf-bin", step=7)
    assert ("vocab.json" in checkpoint.tokenizer_files, checkpoint.step) == (True, 7)


def test_the_names_of_the_first_releases_are_known(golden, tmp_path):
    source = golden / "hf-2019-bin"
    for old, new in (
        ("gpt2-pytorch_model.bin", "gpt2-pytorch_model.bin"),
        ("config.json", "gpt2-config.json"),
        ("vocab.json", "gpt2-vocab.json"),
        ("merges.txt", "gpt2-merges.txt"),
    ):
        shutil.copy(source / old, tmp_path / new)
    with warnings.catch_warnings(action="error"):
        found, expected = torch_bin.read(tmp_path), torch_bin.read(source)
    assert (found.config, found.tokenizer_files) == (expected.config, expected.tokenizer_files)


@pytest.fixture
def wide(tmp_path):
    """A file alone, of a model of width 128, with the names that transformers gives."""
    shapes = {"wte": (50, 128), "wpe": (16, 128), "h.0.ln_1": (128,), "h.0.ln_2": (128,), "ln_f": (128,)}
    shapes |= {"h.0.attn.c_attn": (128, 384), "h.0.attn.c_proj": (128, 128)}
    shapes |= {"h.0.mlp.c_fc": (128, 512), "h.0.mlp.c_proj": (512, 128)}
    state = {f"transformer.{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    state |= {f"transformer.{n}.bias": torch.ones(s[-1]) for n, s in shapes.items() if n not in ("wte", "wpe")}
    torch.save(state, tmp_path / "anything.pt")
    return tmp_path / "anything.pt"


def test_a_file_alone_is_read_by_its_shapes(wide):
    with pytest.warns(UserWarning, match=r"config.json is missing; .* 128 / 64 = 2"):
        config = torch_bin.read(wide).config
    assert (config.vocab_size, config.window, config.width, config.layers, config.heads) == (50, 16, 128, 1, 2)
    assert detect(wide).name == "bin"


def test_a_file_alone_whose_heads_cannot_be_told_is_refused(golden, tmp_path):
    shutil.copy(golden / "hf-bin" / "pytorch_model.bin", tmp_path)
    with pytest.raises(FormatError, match=r"64 does not divide the width 40; copy config.json"):
        torch_bin.read(tmp_path)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
def test_a_trainers_checkpoint_gives_its_weights(golden, tmp_path, key):
    state = torch.load(golden / "hf-bin" / "pytorch_model.bin", weights_only=True)
    torch.save({"epoch": 3, key: state, "optimizer": {"lr": 0.1}}, tmp_path / "last.ckpt")
    shutil.copy(golden / "hf-bin" / "config.json", tmp_path)
    assert_equal_tensors(torch_bin.read(tmp_path / "last.ckpt"), canonical(state))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.json"])
def test_other_files_are_not_taken_for_it(golden, name):
    assert not torch_bin.sniff(golden / "hf-safetensors" / name)


# --- writing ---


@pytest.fixture(scope="module")
def written(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("bin") / "model"
    torch_bin.write(torch_bin.read(golden / "hf-bin"), path, silent)
    return path


def test_torch_reads_what_was_written(golden, written):
    expected = torch.load(golden / "hf-bin" / "pytorch_model.bin", weights_only=True)
    for mapped in (True, False):
        found = torch.load(written / "pytorch_model.bin", weights_only=True, mmap=mapped)
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_head_shares_the_embeddings_place(written):
    found = torch.load(written / "pytorch_model.bin", weights_only=True)
    assert found["lm_head.weight"].data_ptr() == found["transformer.wte.weight"].data_ptr()


@pytest.mark.slow
def test_transformers_takes_the_state_strictly(written, transformers):
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config.from_pretrained(written))
    model.load_state_dict(torch.load(written / "pytorch_model.bin", weights_only=True), strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("shard_bytes", [None, 1, 60_000])
def test_transformers_computes_the_same(golden, tmp_path, transformers, shard_bytes):
    torch_bin.write(torch_bin.read(golden / "hf-bin"), tmp_path / "model", silent, shard_bytes=shard_bytes)
    model, notes = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(notes.values())
    stored = np.load(golden / "hf-bin" / "expected.npz")
    with torch.inference_mode():
        found = model.eval()(torch.tensor(stored["tokens_0"])).logits.numpy()
    np.testing.assert_allclose(found, stored["logits_0"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shard_bytes", [None, 1, 60_000])
@pytest.mark.parametrize("place", ["hf-safetensors", "hf-halfprec/bf16", "hf-halfprec/fp16", "hf-variants/untied"])
def test_writing_keeps_every_bit(golden, tmp_path, place, shard_bytes):
    before = huggingface.read(golden / place)
    torch_bin.write(before, tmp_path / "model", silent, shard_bytes=shard_bytes)
    after = torch_bin.read(tmp_path / "model")
    assert after.config == before.config
    assert {n: t.dtype for n, t in after.tensors.items()} == {n: t.dtype for n, t in before.tensors.items()}
    assert_equal_tensors(after, {name: tensor.read() for name, tensor in before.tensors.items()})


def test_shards_are_written_as_hugging_face_writes_them(golden, tmp_path):
    torch_bin.write(torch_bin.read(golden / "hf-bin"), tmp_path, silent, shard_bytes=60_000)
    index = json.loads((tmp_path / "pytorch_model.bin.index.json").read_text())
    files = {path.name for path in tmp_path.glob("*.bin")}
    assert set(index["weight_map"].values()) == files
    assert all(name.startswith("pytorch_model-0000") and f"-of-{len(files):05}" in name for name in files)


def test_a_type_that_torch_has_no_storage_for_is_refused_before_anything_is_written(golden, tmp_path):
    checkpoint = torch_bin.read(golden / "hf-bin")
    odd = LazyTensor("wpe.weight", "uint32", (56, 40), lambda: np.zeros((56, 40), np.uint32))
    with pytest.raises(ConfigError, match=r"wpe.weight is uint32, which a .bin file cannot hold; .* safetensors"):
        torch_bin.write(
            replace(checkpoint, tensors={**checkpoint.tensors, "wpe.weight": odd}), tmp_path / "model", silent
        )
    assert not (tmp_path / "model").exists()


def test_a_configuration_of_another_model_is_told(golden, tmp_path):
    shutil.copy(golden / "hf-bin" / "pytorch_model.bin", tmp_path)
    shutil.copy(golden / "hf-2019-bin" / "config.json", tmp_path)
    with pytest.raises(WeightMismatch, match=r"wte.weight is"):
        torch_bin.read(tmp_path)
