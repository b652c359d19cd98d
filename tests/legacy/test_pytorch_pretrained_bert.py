"""convert_gpt2_checkpoint: its lines, what it takes as settings, and that transformers opens what it wrote."""

import json
import shutil

import numpy as np
import pytest

from gpt2kit.errors import ConfigError, FormatError, WeightMismatch
from gpt2kit.legacy import programs
from gpt2kit.legacy.nshepperd import train
from gpt2kit.legacy.pytorch_pretrained_bert import convert_gpt2_checkpoint, convert_gpt2_checkpoint_to_pytorch, main
from gpt2kit.resolve import open_checkpoint

pytestmark = pytest.mark.slow

WRITTEN = ["config.json", "merges.txt", "pytorch_model.bin", "vocab.json"]
ADDED_BY_HAND = {"vocab_size": 320, "n_positions": 64, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02}
PREFIX, HPARAMS = "models/345M/model.ckpt", "models/345M/hparams.json"


@pytest.fixture(autouse=True)
def model(have):
    """models/345M: 320 tokens, window 64, width 48, 4 heads, 3 layers."""
    return have("345M")


def settings(here, **changes):
    """hparams.json with these changes, in a file of its own."""
    stored = json.loads((here / HPARAMS).read_text("utf-8")) | changes
    (here / "settings.json").write_text(json.dumps(stored), "utf-8")
    return "settings.json"


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def weights(place):
    return {name: tensor.read() for name, tensor in open_checkpoint(place).tensors.items()}


def test_the_lines_tell_what_is_read_and_written(here, capsys):
    assert main(["convert_gpt2_checkpoint", PREFIX, "out", HPARAMS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Converting TensorFlow checkpoint from {here / PREFIX}"
    assert lines[-2:] == [
        "Save PyTorch model to out/pytorch_model.bin",
        "Save configuration file to out/config.json",
    ]
    assert len(lines) == 3 + 12 * 3 + 4
    assert all(line.startswith("Loading TF weight ") for line in lines[1:-2])
    assert lines[1].endswith("with shape [144]")
    assert names(here / "out") == WRITTEN


def test_transformers_opens_what_was_written_and_computes_the_same(here, golden, transformers):
    import torch

    convert_gpt2_checkpoint([PREFIX, "out", HPARAMS])
    expected = np.load(golden / "openai-tiny" / "expected.npz")
    network = transformers.GPT2LMHeadModel.from_pretrained(here / "out").eval()
    with torch.inference_mode():
        logits_BTV = network(torch.tensor(expected["tokens_0"])).logits.numpy()
    np.testing.assert_allclose(logits_BTV, expected["logits_0"], atol=1e-4)


@pytest.mark.parametrize("source", [PREFIX, "models/345M", f"{PREFIX}.index", f"{PREFIX}.data-00000-of-00001"])
def test_the_checkpoint_may_be_named_by_any_of_its_files(here, model, source):
    convert_gpt2_checkpoint([source, "out"])
    for name, tensor in weights(model).items():
        np.testing.assert_array_equal(weights(here / "out")[name], tensor)


def test_the_settings_that_the_tutorial_made_by_hand_are_as_good(here):
    """Without the four keys, the old program failed with an AttributeError."""
    convert_gpt2_checkpoint([PREFIX, "out", HPARAMS])
    convert_gpt2_checkpoint([PREFIX, "by-hand", settings(here, **ADDED_BY_HAND)])
    for name in WRITTEN:
        assert (here / "by-hand" / name).read_bytes() == (here / "out" / name).read_bytes()


def test_a_config_json_is_as_good_and_its_epsilon_counts(here):
    convert_gpt2_checkpoint([PREFIX, "out"])
    convert_gpt2_checkpoint([PREFIX, "again", "out/config.json"])
    assert (here / "again" / "config.json").read_bytes() == (here / "out" / "config.json").read_bytes()
    convert_gpt2_checkpoint([PREFIX, "other", settings(here, layer_norm_epsilon=1e-6)])
    assert open_checkpoint(here / "other").config.norm_epsilon == 1e-6


def test_the_number_of_heads_comes_from_the_settings(here, model):
    (model / "hparams.json").rename(here / "hparams.json")
    convert_gpt2_checkpoint([PREFIX, "out", "hparams.json"])
    assert open_checkpoint(here / "out").config.heads == 4


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"n_embd": 1024}, WeightMismatch, r"settings\.json: n_embd is 1024, but 48 in models/345M/model\.ckpt"),
        ({"n_layer": 12}, WeightMismatch, r"settings\.json: n_layer is 12, but 3 in"),
        ({"vocab_size": 50257}, ConfigError, r"settings\.json: n_vocab is 320, vocab_size is 50257; both name one"),
        ({"n_head": 2}, WeightMismatch, r"settings\.json: n_head is 2, but 4 in models/345M/model\.ckpt"),
        ({"n_head": 5}, FormatError, r"settings\.json: width 48 cannot be shared evenly by 5 heads"),
        ({"n_head": "4"}, FormatError, r"settings\.json: n_head is '4'; expected a whole number"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_contradict_are_refused(here, changes, error, problem):
    with pytest.raises(error, match=problem):
        convert_gpt2_checkpoint([PREFIX, "out", settings(here, **changes)])
    assert not (here / "out").exists()


def test_settings_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"^nothing\.json: no such file; the settings are optional"):
        convert_gpt2_checkpoint([PREFIX, "out", "nothing.json"])


# --- where to ---


def test_a_missing_directory_is_made(here):
    convert_gpt2_checkpoint([PREFIX, "deep/er/out"])
    assert names(here / "deep" / "er" / "out") == WRITTEN


def test_a_directory_that_holds_something_keeps_it(here):
    (here / "out").mkdir()
    (here / "out" / "notes.txt").write_text("mine", "utf-8")
    convert_gpt2_checkpoint([PREFIX, "out"])
    assert names(here / "out") == sorted([*WRITTEN, "notes.txt"])


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_that_is_there_is_not_written_over(here, name):
    (here / "out").mkdir()
    (here / "out" / name).write_text("mine", "utf-8")
    with pytest.raises(ConfigError, match=f"^out: holds {name} already"):
        convert_gpt2_checkpoint([PREFIX, "out"])
    assert (names(here / "out"), (here / "out" / name).read_text("utf-8")) == ([name], "mine")


def test_a_file_is_no_place_for_it(here):
    (here / "out").touch()
    with pytest.raises(ConfigError, match=r"^out: is a file"):
        convert_gpt2_checkpoint([PREFIX, "out"])


def test_the_directory_of_the_model_will_do(model):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    convert_gpt2_checkpoint([PREFIX, "models/345M", HPARAMS])
    assert names(model) == sorted([*WRITTEN, *before])
    assert {name: (model / name).read_bytes() for name in before} == before
    assert [path.name for path in model.parent.iterdir()] == ["345M"]


def test_what_was_written_there_is_as_good_as_elsewhere(here, model):
    convert_gpt2_checkpoint([PREFIX, "out"])
    convert_gpt2_checkpoint([PREFIX, "models/345M"])
    for name in WRITTEN:
        assert (model / name).read_bytes() == (here / "out" / name).read_bytes()


@pytest.mark.parametrize("put", [shutil.copy, shutil.move], ids=["copied", "renamed"])
@pytest.mark.parametrize("output", ["models/345M", "out"])
def test_a_vocabulary_that_has_its_new_name_there_already_is_left(here, model, put, output):
    """As the tutorial prepared it for transformers."""
    (here / output).mkdir(exist_ok=True)
    for old, new in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        (shutil.copy if output == "out" else put)(model / old, here / output / new)
    before = (here / output / "vocab.json").stat()
    convert_gpt2_checkpoint([PREFIX, output, HPARAMS])
    assert set(WRITTEN) <= set(names(here / output))
    after = (here / output / "vocab.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_vocabulary_of_another_model_is_not_left_there(here, model):
    (model / "vocab.json").write_text('{"a": 0}', "utf-8")
    with pytest.raises(ConfigError, match=r"^models/345M: holds vocab\.json already"):
        convert_gpt2_checkpoint([PREFIX, "models/345M", HPARAMS])
    assert not (model / "pytorch_model.bin").exists()


# --- what else can be converted ---


@pytest.mark.parametrize("words", [[], [HPARAMS]], ids=["alone", "with settings"])
def test_a_step_of_our_own_run_answers_to_its_old_name(here, text, words):
    train(["--dataset", text, "--model_name", "345M", "--sample_length", "8"], last_step=2)
    convert_gpt2_checkpoint(["checkpoint/run1/model-2", "out", *words])
    for name, tensor in weights("run1@2").items():
        np.testing.assert_array_equal(weights(here / "out")[name], tensor)


@pytest.mark.parametrize("words", [[], ["models/117M/hparams.json"]], ids=["alone", "with settings"])
def test_a_step_of_nshepperds_run_finds_its_vocabulary_in_models(here, shared, words):
    shutil.copytree(shared / "fixtures" / "nshepperd", here, dirs_exist_ok=True, copy_function=shutil.copyfile)
    convert_gpt2_checkpoint(["checkpoint/run1/model-2", "out", *words])
    assert names(here / "out") == WRITTEN
    converted = open_checkpoint(here / "out")
    assert (converted.config.heads, converted.config.window) == (2, 1024)


def test_settings_of_another_model_are_refused_for_a_run_too(here):
    convert_gpt2_checkpoint([PREFIX, "ours"])
    with pytest.raises(WeightMismatch, match=r"settings\.json: n_head is 2, but 4 in ours"):
        convert_gpt2_checkpoint(["ours", "out", settings(here, n_head=2)])


# --- words ---


@pytest.mark.parametrize(
    "words", [[], ["convert_gpt2_checkpoint"], ["convert_tf_checkpoint_to_pytorch", "a", "b"], ["--help"]]
)
def test_wrong_usage_is_answered_with_the_right_one_and_status_0(words, capsys):
    assert main(words) == 0
    assert "convert_gpt2_checkpoint TF_CHECKPOINT PYTORCH_DUMP_OUTPUT [GPT2_CONFIG]`" in capsys.readouterr().out


def test_the_script_with_flags_does_the_same(here):
    convert_gpt2_checkpoint([PREFIX, "out", HPARAMS])
    words = ["--gpt2_checkpoint_path", PREFIX, "--pytorch_dump_folder_path", "flags", "--gpt2_config_file", HPARAMS]
    assert convert_gpt2_checkpoint_to_pytorch(words) == 0
    for name in WRITTEN:
        assert (here / "flags" / name).read_bytes() == (here / "out" / name).read_bytes()


def test_it_answers_to_its_name_in_transformers_too(here):
    convert_gpt2_checkpoint([PREFIX, "out"])
    program = programs.named("src/transformers/models/gpt2/convert_gpt2_original_tf_checkpoint_to_pytorch.py")
    assert program(["--gpt2_checkpoint_path", PREFIX, "--pytorch_dump_folder_path", "alias"]) == 0
    for name in WRITTEN:
        assert (here / "alias" / name).read_bytes() == (here / "out" / name).read_bytes()
