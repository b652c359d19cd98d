import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import FormatError, ModelNotFound, TruncatedFile, WeightMismatch
from gpt2kit.formats import openai
from gpt2kit.formats.tensor_bundle import open_tensors, write_tensors
from gpt2kit.progress import silent

TINY = ModelConfig(vocab_size=320, window=64, width=48, layers=3, heads=4, inner_width=192)
RUN = ModelConfig(vocab_size=320, window=1024, width=16, layers=2, heads=2, inner_width=64)
BUNDLE = ("model.ckpt.index", "model.ckpt.data-00000-of-00001")
# OpenAI's names of what one layer has, our names, and their shapes there in units of the width; None is the leading 1.
LAYER = {
    "attn/c_attn/b": ("attn.c_attn.bias", (3,)),
    "attn/c_attn/w": ("attn.c_attn.weight", (None, 1, 3)),
    "attn/c_proj/b": ("attn.c_proj.bias", (1,)),
    "attn/c_proj/w": ("attn.c_proj.weight", (None, 1, 1)),
    "ln_1/b": ("ln_1.bias", (1,)),
    "ln_1/g": ("ln_1.weight", (1,)),
    "ln_2/b": ("ln_2.bias", (1,)),
    "ln_2/g": ("ln_2.weight", (1,)),
    "mlp/c_fc/b": ("mlp.c_fc.bias", (4,)),
    "mlp/c_fc/w": ("mlp.c_fc.weight", (None, 1, 4)),
    "mlp/c_proj/b": ("mlp.c_proj.bias", (1,)),
    "mlp/c_proj/w": ("mlp.c_proj.weight", (None, 4, 1)),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory whose models/ holds only what a test puts there."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def directory(golden, tmp_path):
    """A model that may be changed."""
    return shutil.copytree(golden / "openai-tiny", tmp_path / "tiny")


@pytest.fixture
def run(shared, tmp_path):
    """A run of nshepperd's code with steps 2 and 4, and its models/117M."""
    shutil.copytree(shared / "fixtures" / "nshepperd", tmp_path / "gpt-2", copy_function=shutil.copyfile)
    for place in (tmp_path / "gpt-2").rglob("*"):
        place.chmod(0o755)
    return tmp_path / "gpt-2" / "checkpoint" / "run1"


def change(file, **changes):
    stored = json.loads(file.read_text("utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in stored.items() if value is not None}), "utf-8")


def point_to(directory, text):
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{text}"\n', "utf-8")


def add(directory, **tensors):
    """Put more variables into the bundle, or others of the same name."""
    prefix = directory / "model.ckpt"
    found = {name: tensor.read().copy() for name, tensor in open_tensors(prefix).items()}
    found |= {name.replace("__", "/"): values for name, values in tensors.items()}
    write_tensors(
        {n: LazyTensor(n, "float32", v.shape, lambda v=v: v.astype("f4")) for n, v in found.items()}, prefix, silent
    )


def stored_in_order(file, config):
    """Every tensor of a data file, whose order is that of the names: plainly cut off one after the other."""
    content, tensors = np.fromfile(file, "<f4"), {}
    names = {"model/ln_f/b": ("ln_f.bias", (1,)), "model/ln_f/g": ("ln_f.weight", (1,))}
    for layer in range(config.layers):
        names |= {f"model/h{layer}/{theirs}": (f"h.{layer}.{ours}", shape) for theirs, (ours, shape) in LAYER.items()}
    shapes = {ours: [units * config.width for units in shape if units] for ours, shape in names.values()}
    names |= {"model/wpe": ("wpe.weight", ()), "model/wte": ("wte.weight", ())}
    shapes |= {"wpe.weight": [config.window, config.width], "wte.weight": [config.vocab_size, config.width]}
    for theirs in sorted(names):
        ours = names[theirs][0]
        tensors[ours], content = np.split(content, [np.prod(shapes[ours])])
        tensors[ours] = tensors[ours].reshape(shapes[ours])
    assert content.size == 0
    return tensors


# --- names and values ---


@pytest.mark.parametrize("name", ["openai-tiny", "openai-deep"])
def test_every_tensor_is_where_tensorflow_put_it(shared, name):
    checkpoint = openai.read(shared / "fixtures" / name)
    expected = stored_in_order(shared / "fixtures" / name / BUNDLE[1], checkpoint.config)
    assert set(checkpoint.tensors) == set(expected)
    for ours, values in expected.items():
        np.testing.assert_array_equal(checkpoint.tensors[ours].read(), values)


def test_matrices_lose_their_leading_one_without_a_copy(directory):
    tensor = openai.read(directory).tensors["h.0.mlp.c_fc.weight"]
    assert (tensor.name, tensor.shape) == ("h.0.mlp.c_fc.weight", (48, 192))
    assert isinstance(tensor.read(), np.memmap)


def test_the_tokenizer_files_come_along(golden):
    files = openai.read(golden / "openai-tiny").tokenizer_files
    assert files == {name: (golden / "openai-tiny" / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}


def test_without_a_vocabulary_the_weights_are_read(directory):
    for name in ("encoder.json", "vocab.bpe"):
        (directory / name).unlink()
    assert openai.read(directory).tokenizer_files == {}


def test_what_optimizers_and_counters_keep_is_left_out(directory):
    model = set(openai.read(directory).tensors)
    slots = {f"model__wte__{slot}": np.zeros((320, 48)) for slot in ("Adam", "Adam_1", "ExponentialMovingAverage")}
    add(directory, **slots, global_step=np.zeros(()), beta1_power=np.zeros(()), Variable_1=np.zeros(3))
    assert set(openai.read(directory).tensors) == model


def test_an_unknown_variable_of_the_model_is_refused(directory):
    add(directory, model__h0__attn__c_extra__w=np.zeros(3))
    with pytest.raises(FormatError, match="the variable model/h0/attn/c_extra/w is none of a GPT-2's"):
        openai.read(directory)


def test_another_model_is_told_by_its_variables(directory):
    write_tensors(
        {"layer/w": LazyTensor("a", "float32", (1,), lambda: np.zeros(1, "f4"))}, directory / "model.ckpt", silent
    )
    with pytest.raises(FormatError, match="no GPT-2: there is no model/wte, but 'layer/w'"):
        openai.read(directory)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("gpt2ml", "model.ckpt-100000.index: a GPT2-ML model"),
        ("tensorbundle/tf2_object", "ckpt-1.index: a checkpoint of TensorFlow 2's objects, not OpenAI's"),
        (
            "tensorbundle/saver_v1_legacy",
            "model.ckpt: a TensorFlow checkpoint of version 1.*Saver, which writes version 2",
        ),
        ("tensorbundle/saver_v1_legacy/model.ckpt", "a TensorFlow checkpoint of version 1"),
        ("tensorbundle/sharded_adam", "the variable model/part is none of a GPT-2's"),
    ],
)
def test_relatives_are_known_and_refused_by_name(shared, name, match):
    assert openai.sniff(shared / "fixtures" / name)
    with pytest.raises(FormatError, match=match):
        openai.read(shared / "fixtures" / name)


# --- which bundle ---


@pytest.mark.parametrize("name", ["", "checkpoint", "model.ckpt", *BUNDLE])
def test_any_of_its_names_leads_to_the_model(golden, name):
    path = golden / "openai-tiny" / name
    assert openai.sniff(path)
    assert openai.read(path).config == TINY


@pytest.mark.parametrize("name", ["hf-safetensors", "openai-tiny/hparams.json", "openai-tiny/model", "nothing"])
def test_other_places_are_not_taken_for_it(golden, name):
    assert not openai.sniff(golden / name)


@pytest.mark.parametrize(
    "text",
    [
        "model.ckpt",
        "/content/gpt-2/models/tiny/model.ckpt",
        r"C:\\\\gpt-2\\\\model.ckpt",
        "../../model.ckpt",
        r"model\056ckpt",
    ],
)
def test_the_name_in_checkpoint_is_looked_for_in_its_own_directory(directory, text):
    shutil.copy(directory / BUNDLE[0], directory / "other.index")  # a choice
    shutil.copy(directory / BUNDLE[1], directory / BUNDLE[1].replace("model.ckpt", "other"))
    point_to(directory, text)
    (directory / "other.index").write_bytes(b"damaged")
    assert openai.read(directory).config == TINY


def test_a_name_that_is_not_there_is_told_when_the_only_other_is_read(directory):
    point_to(directory, "/content/model-9")
    with pytest.warns(UserWarning, match=r"names 'model-9', which is not there; read instead: .*model.ckpt"):
        assert openai.read(directory).config == TINY


def test_without_the_file_checkpoint_the_only_bundle_is_read(directory):
    (directory / "checkpoint").unlink()
    assert openai.sniff(directory)
    assert openai.read(directory).config == TINY


def test_several_bundles_without_a_number_must_be_told_apart_by_the_user(directory):
    (directory / "checkpoint").unlink()
    for name in BUNDLE:
        shutil.copy(directory / name, directory / name.replace("model.ckpt", "other"))
    with pytest.raises(FormatError, match=r"holds several checkpoints: .*model.ckpt, .*other; name one of them"):
        openai.read(directory)
    assert openai.read(directory / "other").config == TINY


@pytest.mark.parametrize("text", ["model.ckpt", "..", "x" * 300, r"a\000b", ""])
def test_weights_without_an_index_say_what_is_missing(directory, text):
    (directory / BUNDLE[0]).unlink()
    point_to(directory, text)
    for path in (directory, directory / BUNDLE[1]):
        with pytest.raises(FormatError, match=r"\.index: missing; it lists the tensors"):
            openai.read(path)


# --- runs ---


def test_of_a_run_the_step_in_checkpoint_is_read(run):
    checkpoint = openai.read(run)
    assert (checkpoint.step, checkpoint.config) == (4, RUN)


def test_an_older_step_is_read_where_it_is_asked_for(run):
    older = openai.read(run, step=2)
    assert older.step == 2
    expected = stored_in_order(run / "model-2.data-00000-of-00001", RUN)
    np.testing.assert_array_equal(older.tensors["wpe.weight"].read(), expected["wpe.weight"])


def test_a_step_that_is_not_there_is_answered_with_those_that_are(run):
    with pytest.raises(ModelNotFound, match="no checkpoint of step 3; there are 2, 4"):
        openai.read(run, step=3)


def test_steps_are_compared_as_numbers(run):
    (run / "checkpoint").unlink()
    for file in list(run.glob("model-4.*")):
        file.rename(file.with_name(file.name.replace("-4.", "-10.")))
    assert openai.read(run).step == 10


def test_a_file_of_a_step_is_that_step(run):
    assert openai.read(run / "model-2.index").step == 2


def test_a_model_without_steps_has_none(golden):
    assert openai.read(golden / "openai-tiny").step is None
    with pytest.raises(ModelNotFound, match="no checkpoint of step 7; its checkpoint has no number"):
        openai.read(golden / "openai-tiny", step=7)


def test_a_file_is_of_no_other_step(run):
    with pytest.raises(ModelNotFound, match=r"model-2\.index: not of step 4"):
        openai.read(run / "model-2.index", step=4)


def test_a_torn_step_names_those_beside_it(run):
    with (run / "model-4.data-00000-of-00001").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(TruncatedFile, match=r"there are other steps: 2 \(ask for one: RUN@2\)"):
        openai.read(run)
    assert openai.read(run, step=2).step == 2


def test_a_run_of_gpt_2_simple_is_read(shared):
    checkpoint = openai.read(shared / "fixtures" / "gpt2simple" / "checkpoint" / "run1")
    assert (checkpoint.step, checkpoint.config) == (2, RUN)
    assert set(checkpoint.tokenizer_files) == {"encoder.json", "vocab.bpe"}


# --- settings that lie elsewhere ---


def test_a_run_finds_its_vocabulary_in_models(run):
    home = run.parents[1] / "models" / "117M"
    assert openai.read(run).tokenizer_files == {n: (home / n).read_bytes() for n in ("encoder.json", "vocab.bpe")}


def test_a_run_finds_models_in_the_working_directory(run, elsewhere):
    shutil.move(run.parents[1] / "models", elsewhere / "models")
    assert openai.read(run).config == RUN


def test_models_of_another_shape_are_passed_over(run):
    models = run.parents[1] / "models"
    shutil.copytree(models / "117M", models / "345M")
    change(models / "345M" / "hparams.json", n_layer=24, n_head=16)
    (models / "broken").mkdir()
    (models / "broken" / "hparams.json").write_text("{", "utf-8")
    assert openai.read(run).config == RUN


def test_models_that_fit_and_differ_in_heads_leave_the_choice_to_the_user(run):
    models = run.parents[1] / "models"
    shutil.copytree(models / "117M", models / "mine")
    change(models / "mine" / "hparams.json", n_head=8)
    with pytest.raises(FormatError, match=r"117M, .*mine all fit it, but differ in the number of heads; copy"):
        openai.read(run)
    assert openai.read(run, model_dir=models / "mine").config == replace(RUN, heads=8)


def test_settings_beside_the_run_count_more_than_those_in_models(run):
    shutil.copy(run.parents[1] / "models" / "117M" / "hparams.json", run)
    change(run / "hparams.json", n_head=4)
    checkpoint = openai.read(run)
    assert (checkpoint.config.heads, checkpoint.tokenizer_files) == (4, {})


def test_the_named_directory_must_have_the_settings(run, elsewhere):
    with pytest.raises(FormatError, match=r"hparams.json: missing; it tells the shape"):
        openai.read(run, model_dir=elsewhere)


def test_the_shapes_tell_what_hparams_leaves_out(directory):
    change(directory / "hparams.json", n_vocab=None, n_ctx=None, n_embd=None, n_layer=None)
    assert openai.read(directory).config == TINY


def test_without_any_settings_a_head_has_64_numbers(tmp_path):
    shapes = {"model/wte": (5, 128), "model/wpe": (4, 128), "model/ln_f/g": (128,), "model/ln_f/b": (128,)}
    for theirs, (_, units) in LAYER.items():
        shapes[f"model/h0/{theirs}"] = tuple(unit * 128 if unit else 1 for unit in units)
    tensors = {n: LazyTensor(n, "float32", shape, lambda s=shape: np.zeros(s, "f4")) for n, shape in shapes.items()}
    write_tensors(tensors, tmp_path / "model-3", silent)
    with pytest.warns(UserWarning, match="128 / 64 = 2"):
        config = openai.read(tmp_path).config
    assert config == ModelConfig(vocab_size=5, window=4, width=128, layers=1, heads=2, inner_width=512)


def test_settings_of_another_model_are_noticed(directory):
    change(directory / "hparams.json", n_ctx=32)
    with pytest.raises(WeightMismatch, match=r"wpe.weight is \(64, 48\), but the configuration asks for \(32, 48\)"):
        openai.read(directory)


@pytest.mark.parametrize("value", [0, -1, True, 4.0, "4", 10**30, [4]], ids=repr)
def test_settings_that_are_no_counts_are_refused(directory, value):
    change(directory / "hparams.json", n_head=value)
    with pytest.raises(FormatError, match=r"n_head is .*; expected a whole number from 1"):
        openai.read(directory)
