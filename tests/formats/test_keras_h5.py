import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from gpt2kit.checkpoint import Checkpoint, LazyTensor, tensor_shapes
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError, MissingExtra
from gpt2kit.formats import huggingface, keras_h5
from gpt2kit.progress import silent

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.slow  # each file is opened by a child process
WRITTEN_BY_KERAS = ["hf-tf-h5", "hf-tf-h5/sharded", "hf-tf-h5/base_model", "hf-tf-h5-old"]
CONFIG = ModelConfig(vocab_size=320, window=56, width=40, heads=4, layers=3, inner_width=160)


def datasets_of(path):
    """Every dataset of an HDF5 file, as h5py reads it."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def layout_of(path):
    """All that an HDF5 file says beside its values."""
    told = {}

    def tell(name, item):
        attributes = {key: np.asarray(value).tolist() for key, value in item.attrs.items()}
        told[name] = attributes, getattr(item, "shape", None), str(getattr(item, "dtype", None))

    with h5py.File(path) as file:
        tell("/", file)
        file.visititems(tell)
    return told


# --- reading ---


@pytest.mark.parametrize("name", WRITTEN_BY_KERAS)
def test_what_keras_wrote_is_recognised(golden, name):
    assert keras_h5.sniff(golden / name)


def test_a_single_file_is_recognised_by_its_content(golden, tmp_path):
    assert keras_h5.sniff(golden / "hf-tf-h5" / "tf_model.h5")
    (tmp_path / "text.h5").write_text("text", "utf-8")
    assert not keras_h5.sniff(tmp_path / "text.h5")
    assert not keras_h5.sniff(golden / "hf-safetensors")


@pytest.mark.parametrize("name", WRITTEN_BY_KERAS)
def test_the_configuration_is_the_one_beside_it(golden, name):
    assert keras_h5.read(golden / name).config == CONFIG


@pytest.mark.parametrize("name", WRITTEN_BY_KERAS)
def test_every_tensor_has_the_values_that_h5py_reads(golden, name):
    stored = {}
    for file in (golden / name).glob("*.h5"):
        stored |= {dataset.rpartition("transformer/")[2]: values for dataset, values in datasets_of(file).items()}
    found = keras_h5.read(golden / name).tensors
    assert len(stored) == len(found) == 2 + 3 * 12 + 2

    def equal(canonical, dataset):
        expected = stored[dataset]
        np.testing.assert_array_equal(found[canonical].read(), expected[0] if "bias" in dataset else expected)

    equal("wte.weight", "wte/weight:0" if name == "hf-tf-h5-old" else "wte/embeddings:0")
    equal("wpe.weight", "wpe/embeddings:0")
    equal("ln_f.weight", "ln_f/gamma:0")
    equal("ln_f.bias", "ln_f/beta:0")
    for n in range(3):
        for norm in ("ln_1", "ln_2"):
            equal(f"h.{n}.{norm}.weight", f"h_._{n}/{norm}/gamma:0")
            equal(f"h.{n}.{norm}.bias", f"h_._{n}/{norm}/beta:0")
        for matrix in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            for parameter in ("weight", "bias"):
                equal(f"h.{n}.{matrix}.{parameter}", f"h_._{n}/{matrix.replace('.', '/')}/{parameter}:0")


def test_biases_are_mapped_like_the_rest(golden):
    bias = keras_h5.read(golden / "hf-tf-h5").tensors["h.0.attn.c_attn.bias"].read()
    assert bias.shape == (120,)
    assert isinstance(bias, np.memmap)


def test_the_tokenizer_comes_along(golden):
    assert set(keras_h5.read(golden / "hf-tf-h5").tokenizer_files) == {"vocab.json", "merges.txt"}


def test_a_single_file_finds_its_surroundings_beside_it(golden):
    file = golden / "hf-tf-h5" / "tf_model.h5"
    assert (keras_h5.read(file).config, keras_h5.read(file).origin) == (CONFIG, str(file))


def test_surroundings_may_lie_elsewhere(golden, tmp_path):
    shutil.copy(golden / "hf-tf-h5" / "tf_model.h5", tmp_path / "weights.h5")
    checkpoint = keras_h5.read(tmp_path / "weights.h5", step=7, model_dir=golden / "hf-tf-h5")
    assert (checkpoint.config, checkpoint.step) == (CONFIG, 7)


@pytest.mark.parametrize("scope", ["tfgp_t2lm_head_model_1/transformer/", "tf_gpt2_model/transformer/", ""])
def test_the_scope_of_any_class_is_passed_over(golden, tmp_path, scope):
    shutil.copy(golden / "hf-tf-h5" / "config.json", tmp_path)
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        for dataset, values in datasets_of(golden / "hf-tf-h5" / "tf_model.h5").items():
            file[f"transformer/{scope}{dataset.rpartition('transformer/')[2]}"] = values
    assert keras_h5.read(tmp_path).config == CONFIG


# --- writing ---


def test_keras_would_have_written_the_same_file(golden, tmp_path):
    keras_h5.write(keras_h5.read(golden / "hf-tf-h5"), tmp_path / "out", silent)
    written, expected = tmp_path / "out" / "tf_model.h5", golden / "hf-tf-h5" / "tf_model.h5"
    assert layout_of(written) == layout_of(expected)
    found = datasets_of(written)
    for name, values in datasets_of(expected).items():
        np.testing.assert_array_equal(found[name], values)


def test_the_surroundings_are_written_too(golden, tmp_path):
    keras_h5.write(keras_h5.read(golden / "hf-tf-h5"), tmp_path / "out", silent)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "merges.txt", "tf_model.h5", "vocab.json")
    }


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_half_precision_is_widened_exactly(golden, tmp_path, name):
    before = huggingface.read(golden / "hf-halfprec" / name)
    keras_h5.write(before, tmp_path, silent)
    after = keras_h5.read(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["torch_dtype"] == "float32"
    for tensor, written in zip(before.tensors.values(), after.tensors.values(), strict=False):
        assert written.dtype == "float32"
        np.testing.assert_array_equal(after.tensors[tensor.name].read(), tensor.read_float32())


def test_progress_counts_bytes_to_the_end(golden, tmp_path):
    reports = []
    keras_h5.write(keras_h5.read(golden / "hf-tf-h5"), tmp_path, reports.append)
    values_bytes = 4 * (320 * 40 + 56 * 40 + 3 * (12 * 40 * 40 + 13 * 40) + 2 * 40)
    assert (len(reports), reports[-1].done, reports[-1].total, reports[-1].unit) == (40, *[values_bytes] * 2, "byte")


def test_a_failed_write_leaves_what_was_there(golden, tmp_path):
    checkpoint = keras_h5.read(golden / "hf-tf-h5")
    (tmp_path / "tf_model.h5").write_bytes(b"before")

    def fail():
        raise OSError(28, "No space left on device")

    broken = LazyTensor("ln_f.bias", "float32", (40,), fail)
    with pytest.raises(OSError, match="No space"):
        keras_h5.write(replace(checkpoint, tensors={**checkpoint.tensors, "ln_f.bias": broken}), tmp_path, silent)
    assert (tmp_path / "tf_model.h5").read_bytes() == b"before"
    assert not list(tmp_path.glob(".*partial"))


ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from gpt2kit.formats import keras_h5
from gpt2kit.progress import silent

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoint = keras_h5.read(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    keras_h5.write(checkpoint, Path(sys.argv[2]), silent)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on files")
@pytest.mark.parametrize("room_bytes", [20_000, 200_000, 350_000])
def test_a_full_disk_is_an_error_and_not_a_crash(golden, tmp_path, room_bytes):
    """libhdf5 loses such errors, and crashes when it closes the file."""
    done = subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, golden / "hf-tf-h5", tmp_path, str(room_bytes)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "File too large\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "merges.txt", "vocab.json"}


def test_very_deep_models_spread_their_names_over_several_attributes(tmp_path):
    """336 layers have 4,036 names; HDF5 allows 64 KB an attribute."""
    config = ModelConfig(vocab_size=2, window=2, width=1, heads=1, layers=336, inner_width=1)
    tensors = {
        name: LazyTensor(name, "float32", shape, lambda shape=shape: np.zeros(shape, np.float32))
        for name, shape in tensor_shapes(config).items()
    }
    keras_h5.write(Checkpoint(config, tensors, {}, "deep"), tmp_path, silent)
    with h5py.File(tmp_path / "tf_model.h5") as file:
        attributes = file["transformer"].attrs
        assert set(attributes) == {"weight_names0", "weight_names1"}
        names = [*attributes["weight_names0"], *attributes["weight_names1"]]
        assert len(names) == len(set(names)) == 4 + 12 * 336
        assert all(name in file["transformer"] for name in names)
    assert keras_h5.read(tmp_path).config == config


@pytest.mark.parametrize(
    ("name", "problem"),
    [("untied", "head is a matrix of its own"), ("inv_layer_scale", "scores are scaled by layer")],
)
def test_what_keras_has_no_place_for_is_refused_before_anything_is_written(golden, tmp_path, name, problem):
    checkpoint = huggingface.read(golden / "hf-variants" / name)
    with pytest.raises(ConfigError, match=f"{problem}; TFGPT2LMHeadModel has no place for that, safetensors has"):
        keras_h5.write(checkpoint, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_unscaled_attention_is_refused(tiny_checkpoint, tmp_path):
    unscaled = replace(tiny_checkpoint, config=replace(tiny_checkpoint.config, scale_attention=False))
    with pytest.raises(ConfigError, match="scores are not scaled"):
        keras_h5.write(unscaled, tmp_path / "out", silent)


def test_without_h5py_nothing_is_written(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"writing tf_model.h5 needs .*pip install 'gpt2kit\[h5\]'"):
        keras_h5.write(tiny_checkpoint, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()
