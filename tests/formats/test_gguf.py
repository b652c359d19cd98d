"""llama.cpp's files: what its programs computed with those that they made, and what comes of ours."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from gpt2kit.errors import ConfigError, FormatError, TruncatedFile, WeightMismatch
from gpt2kit.formats import gguf, huggingface
from gpt2kit.formats.gguf_blocks import KINDS, Q4_0, Q6_K, Q8_0
from gpt2kit.formats.gguf_file import BOOL, F32, STRING, U32, TypedValue, open_file, write_file
from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.jobs.compare import compare
from gpt2kit.jobs.convert import convert
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.tokenizer.open import open_tokenizer
from gpt2kit.tokenizer.vocabulary import read_vocabulary

TYPES = ["f32", "f16", "bf16", "q8_0"]
MATRICES = 3 * 4 + 1  # of the small model: four a layer, and the embedding


@pytest.fixture(scope="module")
def made(shared):
    """The folder of files that llama.cpp's converter made of one model."""
    return shared / "fixtures" / "gguf"


@pytest.fixture(scope="module")
def source(made):
    """That model."""
    return open_checkpoint(made / "small_source_hf")


def logits(checkpoint, ids_BT):
    engine = ReferenceEngine(checkpoint, len(ids_BT))
    return engine.step([Row(slot, ids.tolist(), "all") for slot, ids in enumerate(ids_BT)])


# --- reading what llama.cpp's programs wrote ---


@pytest.mark.parametrize("type", TYPES)
def test_logits_are_those_of_the_weights_in_the_file(made, type):
    expected, checkpoint = np.load(made / "expected.npz"), open_checkpoint(made / f"small-{type}.gguf")
    for number in range(2):
        ids_BT, logits_BTV = expected[f"tokens_{number}"], expected[f"{type}_logits_{number}"]
        np.testing.assert_allclose(logits(checkpoint, ids_BT), logits_BTV.reshape(-1, 320), atol=1e-4, rtol=0)


def test_fp32_continues_as_the_source_did(made):
    expected, engine = np.load(made / "expected.npz"), ReferenceEngine(open_checkpoint(made / "small-f32.gguf"), 1)
    ids = expected["greedy_prompt"].tolist()
    while len(ids) < expected["greedy_tokens"].size:
        engine.truncate(0, 0)
        ids.append(int(engine.step([Row(0, ids, "last")]).argmax()))
    assert ids == expected["greedy_tokens"][0].tolist()


def test_the_whole_vocabulary_is_read_with_the_weights(made, shared):
    expected, checkpoint = np.load(made / "expected_full_f32.npz"), open_checkpoint(made / "full-q8_0.gguf")
    found = logits(checkpoint, expected["tokens_1"])[:, expected["cols_1"]]
    np.testing.assert_allclose(found, expected["dq_logits_cols_1"].reshape(-1, 200), atol=1e-4, rtol=0)
    files = {name: (shared / "data" / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    original, read = (open_tokenizer(each, "") for each in (files, checkpoint.tokenizer_files))
    assert read.sha256 == original.sha256
    for case in json.loads((made / "encodings_full.json").read_text("utf-8")):
        assert read.encode(case["text"], special=True) == case["ids"]


@pytest.mark.parametrize("type", TYPES)
def test_settings_and_vocabulary_are_those_of_the_source(made, source, type):
    found = open_checkpoint(made / f"small-{type}.gguf")
    assert found.config == source.config
    ours, theirs = (read_vocabulary(each.tokenizer_files, "") for each in (found, source))
    assert (ours.ids, ours.merges, ours.special) == (theirs.ids, theirs.merges, theirs.special)


def test_a_directory_with_one_file_is_a_model_with_two_it_is_not(made, tmp_path):
    shutil.copy(made / "small-f32.gguf", tmp_path)
    assert compare(open_checkpoint(tmp_path), made / "small-f32.gguf").nothing
    shutil.copy(made / "small-f16.gguf", tmp_path)
    with pytest.raises(FormatError, match=r"holds 2 GGUF files; name one of them: small-f16\.gguf, small-f32\.gguf"):
        open_checkpoint(tmp_path)


# --- writing ---


@pytest.mark.parametrize("type", TYPES)
def test_what_was_read_is_written_as_it_was(made, tmp_path, type):
    gguf.write(gguf.stored(open_checkpoint(made / f"small-{type}.gguf"), None), tmp_path / "out.gguf", silent)
    for ours, theirs in zip(
        *(sorted(open_file(file)[1].items()) for file in (tmp_path / "out.gguf", made / f"small-{type}.gguf")),
        strict=True,
    ):
        assert (ours[0], ours[1].kind, ours[1].shape) == (theirs[0], theirs[1].kind, theirs[1].shape)
        np.testing.assert_array_equal(ours[1].rows(), theirs[1].rows())


@pytest.mark.parametrize(("type", "dtype"), [*zip(TYPES, ("float32", "float16", "bfloat16", "q8_0"), strict=True)])
def test_the_source_becomes_the_file_that_llama_cpps_converter_made(made, source, tmp_path, type, dtype):
    convert(source, tmp_path / "out.gguf", to="gguf", dtype=dtype)
    (settings, ours), (expected, theirs) = (
        open_file(file) for file in (tmp_path / "out.gguf", made / f"small-{type}.gguf")
    )
    assert {name: value for name, value in expected.items() if settings.get(name) != value}.keys() == {
        *("general.type", "general.name", "general.finetune", "general.basename", "general.size_label"),
        "tokenizer.ggml.add_eos_token",
    }
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].kind is tensor.kind, name
        np.testing.assert_array_equal(ours[name].rows(), tensor.rows(), err_msg=name)


def test_there_and_back_every_bit_is_the_same(source, tmp_path):
    there = convert(source, tmp_path / "there", to="gguf")
    assert there.difference.nothing
    assert [file.name for file in (tmp_path / "there").iterdir()] == ["model.gguf"]
    back = convert(tmp_path / "there", tmp_path / "back")
    assert compare(back.checkpoint, source).nothing


def test_a_rounded_model_says_how_far_it_is_from_its_source(source, tmp_path):
    conversion = convert(source, tmp_path / "out.gguf", to="gguf", dtype="q4_0")
    assert not conversion.difference.bit_equal
    assert 0.01 < conversion.difference.largest < 0.5
    kinds = [tensor.kind for tensor in open_file(tmp_path / "out.gguf")[1].values()]
    assert (kinds.count(Q4_0), kinds.count(Q8_0)) == (MATRICES - 1, 1)
    again = convert(tmp_path / "out.gguf", tmp_path / "again.gguf", to="gguf", dtype="q4_0")
    assert again.difference.nothing


def test_a_head_of_its_own_is_kept(shared, tmp_path):
    untied = open_checkpoint(shared / "fixtures" / "hf-variants" / "untied")
    assert convert(untied, tmp_path / "out.gguf", to="gguf").difference.nothing
    assert "output.weight" in open_file(tmp_path / "out.gguf")[1]


def test_an_embedding_that_was_written_twice_is_a_tied_head(made, source, tmp_path):
    settings, tensors = open_file(made / "small-f32.gguf")
    twice = {**tensors, "output.weight": tensors["token_embd.weight"]}
    assert compare(gguf.read(rewritten(settings, twice, tmp_path / "twice.gguf")), source).nothing


def test_padding_and_special_tokens_are_kept(source, tmp_path):
    config = replace(source.config, vocab_size=330)
    tensors = dict(source.tensors)
    rows = np.zeros((330, 32), np.float32)
    tensors["wte.weight"] = replace(tensors["wte.weight"], shape=rows.shape, load=lambda: rows)
    files = {**source.tokenizer_files, "added_tokens.json": b'{"<|pad|>": 325}'}
    padded = replace(source, config=config, tensors=tensors, tokenizer_files=files)
    assert convert(padded, tmp_path / "out.gguf", to="gguf").difference.nothing
    settings = open_file(tmp_path / "out.gguf")[0]
    assert settings["tokenizer.ggml.tokens"][324:327] == ["[PAD324]", "<|pad|>", "[PAD326]"]
    assert settings["tokenizer.ggml.token_type"][318:327] == [1, 3, 5, 5, 5, 5, 5, 3, 5]


def test_without_a_vocabulary_the_file_has_none(source, tmp_path):
    convert(replace(source, tokenizer_files={}), tmp_path / "out.gguf", to="gguf")
    assert open_checkpoint(tmp_path / "out.gguf").tokenizer_files == {}
    settings, tensors = open_file(tmp_path / "out.gguf")
    told = {name: value for name, value in settings.items() if name.endswith("vocab_size") or "tokenizer" in name}
    assert told == {"tokenizer.ggml.model": "no_vocab", "gpt2.vocab_size": 320}
    none = rewritten(settings, tensors, tmp_path / "none.gguf", {"tokenizer.ggml.model": TypedValue(STRING, "none")})
    assert open_checkpoint(none).tokenizer_files == {}


@pytest.mark.parametrize(
    "changes", [{"activation": "gelu_exact"}, {"scale_attention": False}, {"scale_attention_by_layer": True}]
)
def test_what_llama_cpp_would_compute_otherwise_is_not_written(source, tmp_path, changes):
    with pytest.raises(ConfigError, match=r"llama\.cpp runs GPT-2 with gelu_tanh"):
        convert(replace(source, config=replace(source.config, **changes)), tmp_path / "out.gguf", to="gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_types_of_gguf_are_for_gguf(source, tmp_path):
    with pytest.raises(ConfigError, match="safetensors cannot hold q8_0; it holds float32 or float16 or bfloat16"):
        convert(source, tmp_path / "out", dtype="q8_0")


def test_a_file_that_is_there_is_not_replaced(source, tmp_path):
    (tmp_path / "out.gguf").write_text("precious", "utf-8")
    with pytest.raises(ConfigError, match="holds something already"):
        convert(source, tmp_path / "out.gguf", to="gguf")
    assert (tmp_path / "out.gguf").read_text("utf-8") == "precious"


def test_values_that_no_scale_reaches_are_refused(source, tmp_path):
    rows = np.full((320, 32), 1e9, np.float32)
    tensors = {**source.tensors, "wte.weight": replace(source.tensors["wte.weight"], load=lambda: rows)}
    with pytest.raises(ConfigError, match=r"wte\.weight holds values that Q8_0 has no scale for"):
        convert(replace(source, tensors=tensors), tmp_path / "out.gguf", to="gguf", dtype="q8_0")


def test_rows_that_blocks_do_not_divide_stay_as_they_are(make_narrow, tmp_path):
    with pytest.warns(UserWarning, match="stay float32: blocks of 32 do not divide their rows"):
        convert(make_narrow, tmp_path / "out.gguf", to="gguf", dtype="q8_0")


@pytest.fixture
def make_narrow(golden):
    """A model of width 48."""
    from gpt2kit.config.model import ModelConfig
    from gpt2kit.model.initial import initial_checkpoint

    files = huggingface.read(golden / "hf-safetensors").tokenizer_files
    return initial_checkpoint(
        ModelConfig(vocab_size=320, window=8, width=48, layers=1, heads=2, inner_width=192), files, 0
    )


# --- blocks, against the loops of ggml-quants.c ---


def q8_0_in_a_loop(values):
    scale = np.float32(max(abs(value) for value in values)) / np.float32(127)
    inverse = np.float32(1) / scale if scale else np.float32(0)
    whole = [
        int(np.floor(abs(product) + 0.5) * np.sign(product))
        for value in values
        if (product := value * inverse) is not None
    ]
    return np.float16(scale).tobytes() + np.array(whole, np.int8).tobytes()


def q4_0_in_a_loop(values):
    largest = np.float32(0)
    for value in values:
        if abs(value) > abs(largest):
            largest = value
    scale = largest / np.float32(-8)
    inverse = np.float32(1) / scale if scale else np.float32(0)
    whole = [min(15, int(value * inverse + np.float32(8.5))) for value in values]
    return np.float16(scale).tobytes() + bytes(whole[n] | whole[n + 16] << 4 for n in range(16))


@pytest.mark.parametrize(("kind", "loop"), [(Q8_0, q8_0_in_a_loop), (Q4_0, q4_0_in_a_loop)])
def test_blocks_are_those_of_the_loop(kind, loop):
    draws = np.random.default_rng(0)
    rows = draws.standard_normal((300, 64)).astype(np.float32) * draws.choice([1e-3, 1, 100], (300, 1)).astype(
        np.float32
    )
    rows[0], rows[1, :32], rows[2] = 0, -1.5, np.rint(rows[2])
    found = kind.rounded(rows)
    assert found.tobytes() == b"".join(loop(block) for block in rows.reshape(-1, 32))
    meant = kind.values(found, rows.shape)
    steps = np.abs(rows.reshape(-1, 32)).max(axis=1, keepdims=True) / (127 if kind is Q8_0 else 8)
    assert (np.abs(meant - rows).reshape(-1, 32) <= steps * 1.01).all()


def test_blocks_of_six_bits_mean_what_the_loop_says():
    blocks = np.random.default_rng(1).integers(0, 256, (20, 210), dtype=np.uint8)
    blocks[:, 208:] = np.array([0.01], "<f2").view(np.uint8)
    expected = np.empty((20, 256), np.float32)
    for block, values in zip(blocks.astype(int), expected, strict=True):
        scales = block[192:208].astype(np.uint8).view(np.int8)
        for half in range(2):
            low, high, scale = block[64 * half :], block[128 + 32 * half :], scales[8 * half :]
            for n in range(32):
                bits = (low[n] & 15, low[n + 32] & 15, low[n] >> 4, low[n + 32] >> 4)
                for quarter in range(4):
                    whole = (bits[quarter] | (high[n] >> 2 * quarter & 3) << 4) - 32
                    scaled = np.float32(np.float16(0.01)) * np.float32(scale[2 * quarter + n // 16])
                    values[128 * half + 32 * quarter + n] = scaled * np.float32(whole)
    np.testing.assert_array_equal(Q6_K.values(blocks, (20, 256)), expected)


# --- files that are wrong ---

WRONG = {
    "gguf_absurd_tensor_count": (TruncatedFile, "are promised here"),
    "gguf_absurd_kv_count": (TruncatedFile, "are promised here"),
    "gguf_absurd_string_len": (TruncatedFile, "are promised here"),
    "gguf_bad_magic": (FormatError, "begins with"),
    "gguf_version_1": (FormatError, "of version 1; expected 2 or 3"),
    "gguf_truncated": (TruncatedFile, "the file ends"),
    "gguf_block_count_lies": (WeightMismatch, "gpt2.block_count is 99, but the tensors are of 3"),
    "gguf_other_arch": (FormatError, "architecture 'gptX'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_lies_is_refused(shared, case):
    error, told = WRONG[case]
    with pytest.raises(error, match=told):
        gguf.read(shared / "fixtures" / "bad" / case / "model.gguf")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"gpt2.context_length": TypedValue(U32, 55)}, "gpt2.context_length is 55, but the tensors are of 56"),
        ({"gpt2.attention.head_count": TypedValue(U32, 5)}, "heads"),
        ({"gpt2.attention.head_count": TypedValue(STRING, "4")}, "head_count is '4'; expected a whole number"),
        ({"gpt2.attention.layer_norm_epsilon": TypedValue(STRING, "small")}, "layer_norm_epsilon"),
        ({"general.alignment": TypedValue(U32, 12)}, "general.alignment is 12; expected a multiple of 8"),
        ({"split.count": TypedValue(U32, 3)}, "one of 3 parts; join them first"),
        ({"tokenizer.ggml.tokens": TypedValue(STRING, ["a"])}, "expected lists of tokens and merges"),
    ],
)
def test_settings_that_contradict_are_refused(made, tmp_path, settings, told):
    file = rewritten(*open_file(made / "small-f32.gguf"), tmp_path / "wrong.gguf", settings)
    with pytest.raises((FormatError, WeightMismatch), match=told):
        gguf.read(file)


def rewritten(values, tensors, target, changes=None):
    """A file of these settings and tensors, some settings changed."""
    kinds = {str: STRING, int: U32, float: F32, bool: BOOL}
    first = lambda value: value[0] if isinstance(value, list) else value  # noqa: E731
    settings = {name: TypedValue(kinds[type(first(value))], value) for name, value in values.items()}
    stored = {name: (each.kind, each.shape, each.rows) for name, each in tensors.items()}
    write_file(settings | (changes or {}), stored, target)
    return target


def test_a_type_that_is_not_read_is_named(made, tmp_path):
    unknown = replace(KINDS[0], number=12)
    tensors = open_file(made / "small-f32.gguf")[1]
    settings = {"general.architecture": TypedValue(STRING, "gpt2")}
    write_file(
        settings, {name: (unknown, each.shape, each.rows) for name, each in tensors.items()}, tmp_path / "a.gguf"
    )
    with pytest.raises(
        FormatError, match="is of the type 12, which is not read; read are F32, F16, Q4_0, Q8_0, Q6_K, BF16"
    ):
        gguf.read(tmp_path / "a.gguf")


@pytest.mark.parametrize(("setting", "told"), [("model", "of the kind 'bert'"), ("pre", "by the rule 'bert'")])
def test_a_tokenizer_of_another_kind_is_told_of(made, tmp_path, setting, told):
    changes = {f"tokenizer.ggml.{setting}": TypedValue(STRING, "bert")}
    with pytest.warns(UserWarning, match=told):
        gguf.read(rewritten(*open_file(made / "small-f32.gguf"), tmp_path / "other.gguf", changes))
