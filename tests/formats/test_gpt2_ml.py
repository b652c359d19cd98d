import json
import shutil

import numpy as np
import pytest

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError, FormatError, WeightMismatch
from gpt2kit.formats import gpt2_ml, huggingface, openai
from gpt2kit.formats.registry import FORMATS, detect, writable
from gpt2kit.formats.tensor_bundle import open_tensors, write_tensors
from gpt2kit.jobs.convert import convert
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.tokenizer.open import open_tokenizer

BUNDLE = "model.ckpt-100000"
NUMBERS = {"vocab_size": 8021, "window": 48, "width": 24, "layers": 3, "heads": 4, "inner_width": 96}
TINY = ModelConfig(architecture="gpt2-ml", activation="gelu_exact", **NUMBERS)
BERT_ROWS, BERT_TOKENS = 21130, 21128  # of the released model of 15 GB


@pytest.fixture
def directory(shared, tmp_path):
    """A model that may be changed, in models/tiny/."""
    place = shutil.copytree(shared / "fixtures" / "gpt2ml", tmp_path / "models" / "tiny", copy_function=shutil.copyfile)
    place.chmod(0o755)
    return place


def change(directory, /, left_out=(), **arrays):
    """Put other values or more variables into the bundle; __ is a / of a name."""
    prefix = directory / BUNDLE
    found = {name: tensor.read().copy() for name, tensor in open_tensors(prefix).items() if name != "global_step"}
    found |= {f"newslm/{name.replace('__', '/')}": values for name, values in arrays.items()}
    tensors = {
        name: LazyTensor(name, "float32", values.shape, lambda values=values: values.astype("f4"))
        for name, values in found.items()
        if name.removeprefix("newslm/") not in left_out
    }
    write_tensors(tensors, prefix, silent)


def settings(directory, **changes):
    file = directory / "config.json"
    stored = json.loads(file.read_text("utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in stored.items() if value is not None}), "utf-8")


def words(count):
    return "\n".join(["[UNK]", "[SEP]", *(f"w{number}" for number in range(count - 2))])


@pytest.fixture
def bert_sized(directory):
    """A model of as many rows as the released one of 15 GB, without its vocabulary."""
    change(directory, embeddings__word_embed=np.zeros((BERT_ROWS, 24)))
    (directory / "vocab.txt").unlink()
    return directory


# --- what is read ---


def test_the_configuration_is_that_of_its_settings(directory):
    checkpoint = gpt2_ml.read(directory)
    assert checkpoint.config == TINY
    assert checkpoint.step == 100_000


def test_query_key_and_value_stand_side_by_side(directory):
    stored, tensors = open_tensors(directory / BUNDLE), gpt2_ml.read(directory).tensors
    for kind, ours in (("kernel", "weight"), ("bias", "bias")):
        found = np.split(tensors[f"h.2.attn.c_attn.{ours}"].read(), 3, axis=-1)
        for part, values in zip(("query", "key", "value"), found, strict=True):
            np.testing.assert_array_equal(values, stored[f"newslm/layer02/{part}_layer/{kind}"].read())


def test_what_adafactor_keeps_is_skipped(directory):
    before = set(gpt2_ml.read(directory).tensors)
    change(
        directory,
        embeddings__word_embed__adafactor_vr=np.ones(8021),
        layer00__output__kernel__adafactor_vc=np.ones(24),
        layer00__output__bias__adafactor_v=np.ones(24),
    )
    assert set(gpt2_ml.read(directory).tensors) == before


@pytest.mark.parametrize("place", ["", BUNDLE, f"{BUNDLE}.index", f"{BUNDLE}.data-00000-of-00001", "checkpoint"])
def test_any_of_its_files_names_it(directory, place):
    assert detect(directory / place).name == "gpt2-ml"
    assert open_checkpoint(directory / place).config == TINY


def test_a_step_is_asked_for_by_its_number(directory):
    assert open_checkpoint(f"{directory}@100000").step == 100_000


def test_openais_model_is_another(golden):
    assert not gpt2_ml.sniff(golden / "openai-tiny")
    assert detect(golden / "openai-tiny").name == "openai"


def test_a_damaged_index_is_refused_when_it_is_read(directory):
    index = directory / f"{BUNDLE}.index"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(FormatError, match=rf"{BUNDLE}\.index: "):
        open_checkpoint(directory)


# --- settings ---


@pytest.mark.parametrize("rows_said", [8021, 21128, 21130])
def test_rows_are_counted_in_the_tensor_where_its_repository_says_other_numbers(bert_sized, rows_said):
    settings(bert_sized, vocab_size=rows_said)
    assert gpt2_ml.read(bert_sized).config.vocab_size == BERT_ROWS


@pytest.mark.parametrize("name", ["mega.json", "large.json", "base.json"])
def test_settings_have_the_names_of_its_repository_too(directory, name):
    (directory / "config.json").rename(directory / name)
    assert gpt2_ml.read(directory).config == TINY


def test_settings_and_vocabulary_are_found_in_a_clone_of_its_repository(directory):
    root = directory.parent.parent
    for folder, name, other in (
        ("configs", "config.json", "large.json"),
        ("tokenization", "vocab.txt", "clue-vocab.txt"),
    ):
        (root / folder).mkdir()
        (directory / name).rename(root / folder / other)
    other_size = {**json.loads((root / "configs" / "large.json").read_text("utf-8")), "num_hidden_layers": 4}
    (root / "configs" / "mega.json").write_text(json.dumps(other_size), "utf-8")
    checkpoint = gpt2_ml.read(directory)
    assert checkpoint.config == TINY
    assert open_tokenizer(checkpoint.tokenizer_files, "there").vocab_size == 8021


def test_without_settings_the_heads_are_counted_by_the_width_or_not_at_all(directory):
    (directory / "config.json").unlink()
    with pytest.raises(FormatError, match=r"config\.json is missing, and the number of heads cannot be guessed"):
        gpt2_ml.read(directory)


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"num_hidden_layers": 2}, WeightMismatch, "tensors that the configuration does not know"),
        ({"num_hidden_layers": 10**9}, WeightMismatch, "asks for 1000000000 layers"),
        ({"hidden_size": 48}, WeightMismatch, r"is \(8021, 24\), but the configuration asks for \(8021, 48\)"),
        ({"vocab_size": 21128}, WeightMismatch, r"config\.json: vocab_size is 21128, but .*word_embed has 8021 rows"),
        ({"vocab_size": 1}, WeightMismatch, r"config\.json: vocab_size is 1, but .*word_embed has 8021 rows"),
        ({"num_attention_heads": 5}, FormatError, "width 24 cannot be shared evenly by 5 heads"),
        ({"num_attention_heads": 0}, FormatError, "heads must be 1 or more, got 0"),
        ({"num_attention_heads": True}, FormatError, "num_attention_heads is True; expected a whole number"),
        ({"intermediate_size": None}, FormatError, "intermediate_size is missing; expected the settings of a GPT2-ML"),
        ({"hidden_act": "relu"}, FormatError, "hidden_act is 'relu'; known is gelu"),
    ],
)
def test_settings_of_another_model_are_refused(directory, changes, error, problem):
    settings(directory, **changes)
    with pytest.raises(error, match=problem):
        gpt2_ml.read(directory)


# --- vocabulary ---


def test_of_two_vocabularies_the_one_that_fits_is_taken(directory, bert_sized, shared):
    shutil.copyfile(shared / "fixtures" / "gpt2ml" / "vocab.txt", directory / "clue-vocab.txt")
    (directory / "bert-base-chinese-vocab.txt").write_text(words(BERT_TOKENS), "utf-8")
    files = gpt2_ml.read(directory).tokenizer_files
    assert open_tokenizer(files, "there").vocab_size == BERT_TOKENS


def test_a_vocabulary_of_another_model_is_refused(bert_sized):
    (bert_sized / "vocab.txt").write_text(words(8021), "utf-8")
    with pytest.raises(
        FormatError, match=r"vocab\.txt has 8,021 tokens, the model 21,130; .*: bert-base-chinese-vocab\.txt"
    ):
        gpt2_ml.read(bert_sized)


def test_without_a_vocabulary_the_weights_are_read(directory):
    (directory / "vocab.txt").unlink()
    assert gpt2_ml.read(directory).tokenizer_files == {}


# --- what is refused ---


@pytest.mark.parametrize("name", ["layer00__other__kernel", "layer0__output__kernel", "layer000__output__kernel", "x"])
def test_a_variable_of_another_model_is_refused(directory, name):
    change(directory, **{name: np.zeros(2)})
    with pytest.raises(FormatError, match=f"the variable newslm/{name.replace('__', '/')} is none of a GPT2-ML's"):
        gpt2_ml.read(directory)


def test_a_missing_part_of_attention_is_refused(directory):
    change(directory, left_out=["layer01/key_layer/kernel"])
    with pytest.raises(
        FormatError, match="query, key and value do not fit together: newslm/layer01/query_layer/kernel"
    ):
        gpt2_ml.read(directory)


@pytest.mark.parametrize("shape", [(), (3,), (24, 25), (24, 24, 1)])
def test_parts_of_attention_of_other_shapes_are_refused(directory, shape):
    change(directory, layer01__key_layer__kernel=np.zeros(shape))
    with pytest.raises(FormatError, match="query, key and value do not fit together"):
        gpt2_ml.read(directory)


def test_a_missing_layer_norm_is_refused(directory):
    change(directory, left_out=["layer01/LayerNorm_mlp_ln1/gamma"])
    with pytest.raises(WeightMismatch, match=r"tensor h\.1\.ln_2\.weight is missing"):
        gpt2_ml.read(directory)


def test_openais_reader_says_what_it_is(directory):
    with pytest.raises(FormatError, match=r"a GPT2-ML model \(variables newslm/\.\.\.\)"):
        openai.read(directory)


@pytest.mark.parametrize("name", [format.name for format in FORMATS])
def test_no_format_of_gpt2_takes_it(directory, tmp_path, name):
    with pytest.raises(ConfigError, match=f"a GPT2-ML cannot be kept as {name}.*: it normalises"):
        convert(directory, tmp_path / "out", to=name)
    assert not (tmp_path / "out").exists()


def test_it_is_never_written():
    with pytest.raises(ConfigError, match="the format gpt2-ml is only read; written are safetensors, nanogpt"):
        writable("gpt2-ml")


# --- runs of it, in our own layout ---


def test_a_run_keeps_it_in_our_own_layout(directory, tmp_path):
    original = gpt2_ml.read(directory)
    huggingface.write(original, tmp_path / "run", silent)
    found = open_checkpoint(tmp_path / "run")
    assert found.config == original.config
    assert found.tokenizer_files == original.tokenizer_files
    for name, tensor in original.tensors.items():
        np.testing.assert_array_equal(found.tensors[name].read(), tensor.read())
