import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.formats import huggingface
from gpt2kit.progress import silent

TINY = {"vocab_size": 320, "window": 56, "width": 40, "heads": 4}


@pytest.fixture
def directory(golden, tmp_path):
    """A model directory that may be damaged."""
    for name in ("config.json", "model.safetensors", "vocab.json", "merges.txt"):
        shutil.copy(golden / "hf-safetensors" / name, tmp_path / name)
    return tmp_path


def change(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def stored_in(directory):
    """Every tensor in a directory, as the safetensors library reads it, by its name without a prefix."""
    stored = {}
    for file in directory.glob("*.safetensors"):
        for name, values in safetensors.torch.load_file(file).items():
            stored[name.removeprefix("transformer.")] = values
    return stored


def bits(checkpoint):
    return {name: (tensor.shape, tensor.read().tobytes()) for name, tensor in checkpoint.tensors.items()}


# --- reading ---


@pytest.mark.slow
def test_every_tensor_is_the_one_that_the_library_reads(example):
    found, expected = huggingface.read(example.directory).tensors, stored_in(example.directory)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].read_float32(), values.float().numpy())


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("hf-safetensors", ModelConfig(**TINY, layers=3, inner_width=160)),
        ("hf-v5", ModelConfig(**TINY, layers=3, inner_width=160)),
        ("hf-halfprec/bf16", ModelConfig(**TINY, layers=3, inner_width=160)),
        ("hf-variants/n_inner", ModelConfig(**TINY, layers=2, inner_width=120)),
        ("hf-variants/untied", ModelConfig(**TINY, layers=2, inner_width=160, tied_head=False)),
        (
            "hf-variants/gelu_exact_eps",
            ModelConfig(**TINY, layers=2, inner_width=160, activation="gelu_exact", norm_epsilon=1e-3),
        ),
        (
            "hf-variants/inv_layer_scale",
            ModelConfig(**TINY, layers=2, inner_width=160, scale_attention_by_layer=True),
        ),
    ],
)
def test_the_configuration_is_understood(golden, name, config):
    assert huggingface.read(golden / name).config == config


def test_a_configuration_of_2019_is_understood(shared):
    config = huggingface.read_config(shared / "fixtures" / "hf-2019-bin" / "config.json")
    stored = json.loads((shared / "fixtures" / "hf-2019-bin" / "config.json").read_text("utf-8"))
    assert config == ModelConfig(
        vocab_size=stored["vocab_size"],
        window=stored["n_ctx"],
        width=stored["n_embd"],
        layers=stored["n_layer"],
        heads=stored["n_head"],
        inner_width=4 * stored["n_embd"],
    )


def test_an_empty_configuration_is_that_of_the_smallest_gpt2(tmp_path):
    (tmp_path / "config.json").write_text("{}", "utf-8")
    assert huggingface.read_config(tmp_path / "config.json") == ModelConfig(
        vocab_size=50257, window=1024, width=768, layers=12, heads=12, inner_width=3072
    )


def test_a_single_file_is_read_with_what_lies_beside_it(directory):
    assert bits(huggingface.read(directory / "model.safetensors")) == bits(huggingface.read(directory))


def test_the_configuration_may_lie_elsewhere(golden, directory, tmp_path):
    lonely = tmp_path / "weights" / "any-name.safetensors"
    lonely.parent.mkdir()
    shutil.copy(directory / "model.safetensors", lonely)
    checkpoint = huggingface.read(lonely, model_dir=golden / "hf-safetensors")
    assert bits(checkpoint) == bits(huggingface.read(directory))


def test_the_tokenizer_files_come_along(golden):
    home = golden / "hf-safetensors"
    names = {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert huggingface.read(home).tokenizer_files == {name: (home / name).read_bytes() for name in names}


def test_a_step_is_recorded(golden):
    assert huggingface.read(golden / "hf-v5", step=2000).step == 2000


def write_with(golden, directory, extra):
    """The weights without prefix, and `extra` tensors, written by the safetensors library as on the hub."""
    home = golden / "hf-safetensors" / "base_model_noprefix"
    tensors = safetensors.numpy.load_file(home / "model.safetensors")
    safetensors.numpy.save_file(tensors | extra, directory / "model.safetensors", {"format": "pt"})


def test_masks_as_on_the_hub_are_not_taken_for_weights(golden, directory, tiny_checkpoint):
    mask = np.tril(np.ones((1, 1, 56, 56), np.float32))
    write_with(golden, directory, {f"h.{layer}.attn.bias": mask for layer in range(3)})
    assert bits(huggingface.read(directory)) == bits(tiny_checkpoint)


def test_masks_of_older_programs_are_not_taken_for_weights(golden, directory, tiny_checkpoint):
    masks = {"attn.bias": np.ones((1, 1, 56, 56), np.uint8), "attn.masked_bias": np.array(-1e4, np.float32)}
    extra = {f"h.{layer}.{name}": mask for layer in range(3) for name, mask in masks.items()}
    write_with(golden, directory, extra)
    assert bits(huggingface.read(directory)) == bits(tiny_checkpoint)


def test_a_tied_head_stored_twice_is_taken_once(golden, directory, tiny_checkpoint):
    write_with(golden, directory, {"lm_head.weight": tiny_checkpoint.tensors["wte.weight"].read()})
    assert bits(huggingface.read(directory)) == bits(tiny_checkpoint)


# --- refusing ---


def test_a_file_without_attention_biases_is_refused(shared):
    # Whoever made it dropped every name that ends in attn.bias, and c_attn.bias with them.
    with pytest.raises(WeightMismatch, match=r"tensor h\.0\.attn\.c_attn\.bias is missing"):
        huggingface.read(shared / "fixtures" / "hf-safetensors" / "hub_style")


DAMAGED = {
    "st_header_2pow60": "claims a header of 1152921504606846976 bytes",
    "st_header_not_json": "not JSON",
    "st_truncated": "the file ends .* bytes before its last tensor does",
    "st_trailing_bytes": "bytes after the last tensor",
    "st_offset_beyond_file": r"takes .* bytes, but has|begins here|the file ends",
    "st_overlapping": "takes .* bytes, but has|begins here",
    "st_shape_size_mismatch": "takes .* bytes, but has",
    "st_unknown_dtype": "has the type",
    "st_tiny_file": "3 bytes, too short for a safetensors file",
    "shard_traversal_relative": r"names the shard '\.\./\.\./etc/passwd', missing; expected a file in the same dir",
    "shard_traversal_absolute": "names the shard '/etc/passwd', missing; expected a file in the same directory",
    "shard_missing_file": "names the shard 'model-00001-of-00002.safetensors'",
    "shard_not_a_dict": "expected a weight_map",
}
LOADS, OTHER_FORMAT = {"st_nan_weights"}, {"shard_bin_traversal"}  # test_registry.py refuses the latter


@pytest.mark.parametrize(("case", "problem"), DAMAGED.items())
def test_damaged_files_are_refused(shared, case, problem):
    with pytest.raises(FormatError, match=problem):
        huggingface.read(shared / "fixtures" / "bad" / case)


@pytest.mark.parametrize("case", DAMAGED)
def test_refusing_creates_nothing(shared, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(shared / "fixtures" / "bad" / case, tmp_path / "model")
    before = sorted(path.name for path in copy.iterdir())
    with pytest.raises(FormatError):
        huggingface.read(copy)
    assert (sorted(path.name for path in copy.iterdir()), list(tmp_path.iterdir())) == (before, [copy])


def test_no_damaged_file_is_forgotten(shared):
    cases = json.loads((shared / "fixtures" / "bad" / "cases.json").read_text("utf-8"))
    assert {case for case in cases if case.startswith(("st_", "shard_"))} == set(DAMAGED) | LOADS | OTHER_FORMAT


def test_weights_that_are_no_numbers_load(shared):
    checkpoint = huggingface.read(shared / "fixtures" / "bad" / "st_nan_weights")
    assert sum(int(np.isnan(tensor.read()).sum()) for tensor in checkpoint.tensors.values()) == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "gpt_neo"}, "describes a 'gpt_neo' model; expected 'gpt2'"),
        (
            {"activation_function": "swish"},
            "activation_function is 'swish'; known are gelu_new, gelu_pytorch_tanh, gelu",
        ),
        ({"activation_function": None}, "activation_function is None"),
        ({"add_cross_attention": True}, "add_cross_attention is true"),
        ({"n_embd": "40"}, "n_embd is '40'; expected a whole number"),
        ({"n_layer": 2.5}, "n_layer is 2.5; expected a whole number"),
        ({"n_head": True}, "n_head is True; expected a whole number"),
        ({"n_head": 3}, "width 40 cannot be shared evenly by 3 heads"),
        ({"n_layer": 0}, "layers must be 1 or more, got 0"),
        ({"layer_norm_epsilon": "small"}, "could not convert"),
        ({"layer_norm_epsilon": None}, "float"),
    ],
    ids=str,
)
def test_an_impossible_configuration_is_refused(directory, changes, problem):
    change(directory / "config.json", **changes)
    with pytest.raises(FormatError, match=rf"config\.json: .*{problem}"):
        huggingface.read(directory)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'"gpt2"'])
def test_a_configuration_that_is_no_object_is_refused(directory, content):
    (directory / "config.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"config\.json: (not JSON|a JSON (list|str); expected an object)"):
        huggingface.read(directory)


@pytest.mark.parametrize("content", [b'{"activation_function": ["gelu_new"]}', b"[" * 100_000], ids=["list", "deep"])
def test_a_configuration_of_odd_types_is_refused(directory, content):
    (directory / "config.json").write_bytes(content)
    with pytest.raises(FormatError):
        huggingface.read(directory)


def test_numbers_beyond_all_bounds_are_refused(directory):
    change(directory / "config.json", layer_norm_epsilon=10**400)
    with pytest.raises(FormatError, match=r"config\.json: int too large to convert to float"):
        huggingface.read(directory)


def test_a_missing_configuration_is_named(directory):
    (directory / "config.json").unlink()
    with pytest.raises(FormatError, match=r"config\.json is missing, and the number of heads cannot be guessed"):
        huggingface.read(directory)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"n_layer": 4}, r"tensor h\.3\.ln_1\.weight is missing"),
        ({"n_layer": 10**6}, r"asks for 1000000 layers, but there are only 40 tensors"),
        ({"n_layer": 2}, r"12 tensors that the configuration does not know, such as h\.2\."),
        ({"n_embd": 80}, r"wte\.weight is \(320, 40\), but the configuration asks for \(320, 80\)"),
        ({"n_positions": 1024}, r"wpe\.weight is \(56, 40\), but the configuration asks for \(1024, 40\)"),
        ({"tie_word_embeddings": False}, r"tensor lm_head\.weight is missing"),
    ],
    ids=str,
)
def test_a_configuration_of_another_model_is_refused(directory, changes, problem):
    change(directory / "config.json", **changes)
    with pytest.raises(WeightMismatch, match=problem):
        huggingface.read(directory)


def test_a_tensor_in_no_shard_is_named(golden, tmp_path):
    copy = shutil.copytree(golden / "hf-safetensors" / "sharded", tmp_path / "model")
    index = copy / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
    change(index, weight_map=weight_map | {"transformer.ln_f.weight": "model-00001-of-00006.safetensors"})
    with pytest.raises(
        FormatError, match=r"1 tensors are not in model-00001-of-00006\.safetensors, such as .*ln_f\.weight"
    ):
        huggingface.read(copy)


@pytest.mark.parametrize("shard", ["", ".", "..", "sub/model.safetensors", "sub\\model.safetensors", "a\0b"])
def test_a_shard_is_a_file_in_the_same_directory(golden, tmp_path, shard):
    copy = shutil.copytree(golden / "hf-safetensors" / "sharded", tmp_path / "model")
    shutil.copytree(golden / "hf-safetensors" / "base_model_noprefix", copy / "sub")
    change(copy / "model.safetensors.index.json", weight_map={"wte.weight": shard})
    with pytest.raises(FormatError, match=r"names the shard .*; expected a file in the same directory"):
        huggingface.read(copy)


@pytest.mark.parametrize(
    "content", [b'{"weight_map": {"wte.weight": "%s"}}' % (b"a" * 300), b"[" * 100_000], ids=["long", "deep"]
)
def test_an_index_that_asks_too_much_is_refused(golden, tmp_path, content):
    copy = shutil.copytree(golden / "hf-safetensors" / "sharded", tmp_path / "model")
    (copy / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(FormatError):
        huggingface.read(copy)


# --- writing ---


@pytest.mark.slow
def test_transformers_computes_the_same_with_what_we_write(transformers, tmp_path, example):
    huggingface.write(huggingface.read(example.directory), tmp_path, silent)
    judge = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    for ids_BT, expected_BTV in example.logits:
        with torch.inference_mode():
            logits_BTV = judge.eval()(torch.tensor(ids_BT)).logits.numpy()
        np.testing.assert_allclose(logits_BTV, expected_BTV, atol=1e-4)


@pytest.mark.parametrize("name", ["hf-safetensors", "hf-variants/untied"])
def test_transformers_misses_nothing_in_what_we_write(transformers, golden, tmp_path, name):
    huggingface.write(huggingface.read(golden / name), tmp_path, silent)
    _, found = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {problem: list(names) for problem, names in found.items() if names} == {}


def test_transformers_encodes_the_same_with_what_we_write(transformers, golden, tmp_path, tiny_checkpoint):
    huggingface.write(tiny_checkpoint, tmp_path, silent)
    judge = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = json.loads((golden / "hf-safetensors" / "encodings.json").read_text("utf-8"))
    assert [judge(case["text"])["input_ids"] for case in expected] == [case["ids"] for case in expected]


def test_there_and_back_is_exact_to_the_bit(tmp_path, example):
    huggingface.write(huggingface.read(example.directory), tmp_path, silent)
    written, expected = stored_in(tmp_path), stored_in(example.directory)
    assert set(written) == set(expected)
    assert all(written[name].dtype == expected[name].dtype for name in expected)
    assert all(torch.equal(written[name], expected[name]) for name in expected)


def test_the_configuration_survives(tmp_path, example):
    huggingface.write(huggingface.read(example.directory), tmp_path, silent)
    assert huggingface.read_config(tmp_path / "config.json") == huggingface.read_config(
        example.directory / "config.json"
    )


def test_readers_of_either_name_find_the_window(tmp_path, tiny_checkpoint):
    # llama.cpp's converter wants n_ctx, transformers n_positions.
    huggingface.write(tiny_checkpoint, tmp_path, silent)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert (config["n_ctx"], config["n_positions"]) == (56, 56)


def test_the_end_token_is_written_into_the_configuration(tmp_path, tiny_checkpoint):
    huggingface.write(tiny_checkpoint, tmp_path, silent)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert (config["bos_token_id"], config["eos_token_id"]) == (319, 319)


def test_openais_files_get_hugging_faces_names(shared, tmp_path, tiny_checkpoint):
    home = shared / "fixtures" / "openai-tiny"
    files = {name: (home / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    huggingface.write(replace(tiny_checkpoint, tokenizer_files=files), tmp_path, silent)
    written = {name: (tmp_path / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    assert list(written.values()) == list(files.values())


def test_a_directory_may_be_written_over_itself(directory):
    before = huggingface.read(directory)
    expected = stored_in(directory)
    huggingface.write(before, directory, silent)
    assert all(torch.equal(values, expected[name]) for name, values in stored_in(directory).items())
