"""gpt-2-simple 0.8.1 itself, on TensorFlow, beside what takes its place."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2kit import finetune, open_checkpoint
from gpt2kit import simple as gpt2
from gpt2kit.config.training import PRESETS, TrainingConfig

pytestmark = pytest.mark.judges
PROGRAMS = Path(__file__).parent / "programs"
# Tokens of one training window. Of one token more their sampler can draw only this one.
WINDOW = 1024


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, shared):
    """A working directory with models/124M: 320 tokens, a window of 1024."""
    run, directory = shared / "fixtures" / "gpt2simple" / "checkpoint" / "run1", tmp_path / "models" / "124M"
    directory.mkdir(parents=True)
    for name in ("hparams.json", "encoder.json", "vocab.bpe"):
        shutil.copy(run / name, directory)
    for ending in ("index", "data-00000-of-00001", "meta"):
        shutil.copy(run / f"model-2.{ending}", directory / f"model.ckpt.{ending}")
    (directory / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n', "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def theirs(programs_of_2024):
    """theirs(program, words): runs one of the programs/. Returns what it printed on standard output."""

    def run(program, *words):
        done = subprocess.run(
            [programs_of_2024, PROGRAMS / program, *map(str, words)],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100"},
            capture_output=True,
            encoding="utf-8",
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


# --- the outside ---


@pytest.fixture
def account(theirs, here):
    """Their signatures and help."""
    theirs("gpt_2_simple_signatures.py", "account.json", *gpt2.__all__)
    return json.loads((here / "account.json").read_text("utf-8"))


def bare(function):
    signature = inspect.signature(function)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def test_every_function_has_their_parameters_and_defaults(account):
    assert {name: bare(getattr(gpt2, name)) for name in gpt2.__all__} == account["signatures"]


def test_the_commands_help_is_theirs(account, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["gpt_2_simple", "--help"])
    with pytest.raises(SystemExit):
        gpt2.cmd()
    assert capsys.readouterr().out.split() == account["help"].split()


# --- texts ---


@pytest.fixture
def texts(here):
    """Texts that are short and long, of several files, of rows."""
    (here / "texts").mkdir()
    for number, text in enumerate(["The cat sat.\n", "ROMEO: what light " * 40, "你好\r\n, and so on. <|endoftext|>"]):
        (here / "texts" / f"{number}.txt").write_text(text, "utf-8", newline="")
    (here / "broken.txt").write_bytes(b"half a \xe4\xbd character")
    (here / "rows.csv").write_text('text,more\nplain,1\n"with ""quotes"", and\nlines",2\n', "utf-8")


@pytest.mark.filterwarnings("ignore:broken.txt")
@pytest.mark.parametrize(
    ("text", "combine"),
    [
        # Each file by itself: they take files in the order that the file system has, we by name.
        *(("texts", 1), ("texts/*.txt", 1)),
        *(("texts/1.txt", 50), ("texts/1.txt", 50000), ("texts/2.txt", 50000)),
        *(("broken.txt", 50000), ("rows.csv", 50), ("rows.csv", 50000)),
    ],
)
def test_a_text_is_encoded_as_they_do(theirs, here, texts, text, combine):
    theirs("gpt_2_simple_encode.py", "124M", combine, "theirs.npz", text)
    gpt2.encode_dataset(text, out_path="ours.npz", combine=combine)
    with np.load(here / "theirs.npz") as expected, np.load(here / "ours.npz") as found:
        assert found.files == expected.files
        assert {array.dtype for array in found.values()} == {array.dtype for array in expected.values()}
        assert sorted(map(np.ndarray.tolist, found.values())) == sorted(map(np.ndarray.tolist, expected.values()))


# --- training ---


def without_keys(place):
    """The weights, without the biases of the keys, whose gradient is 0, for the softmax takes them away.

    Adam makes whole steps of what rounding leaves there.
    """
    weights = {name: tensor.read_float32() for name, tensor in open_checkpoint(place).tensors.items()}
    for name, bias in weights.items():
        if name.endswith("c_attn.bias"):
            weights[name] = np.delete(bias, np.arange(bias.size // 3, 2 * bias.size // 3))
    return weights


@pytest.mark.parametrize(
    ("asked", "share"),
    [
        ({"optimizer": "adam", "learning_rate": 1e-4}, 0.02),
        ({"optimizer": "sgd", "learning_rate": 1e-2}, 1e-4),
        ({"optimizer": "adam", "learning_rate": 1e-4, "only_train_transformer_layers": True}, 0.02),
    ],
    ids=["adam", "sgd", "layers-only"],
)
def test_three_steps_learn_what_theirs_learn(theirs, here, asked, share):
    """Equal but for rounding: apart by a small `share` of the way. Adam's steps make more of it than plain ones."""
    ids = np.random.default_rng(0).integers(0, 319, WINDOW + 1)
    np.savez("theirs.npz", ids)
    np.savez("ours.npz", ids[:WINDOW])
    call = {"dataset": "theirs.npz", "steps": 3, "accumulate_gradients": 2, "run_name": "theirs"}
    theirs("gpt_2_simple_finetune.py", json.dumps({**call, **asked}))
    optimizer = {"adam": "adamw", "sgd": "sgd"}[asked["optimizer"]]
    few = {"steps": 3, "batch_size": 2, "accumulate": 2, "precision": "fp32"}
    training = TrainingConfig(**{**PRESETS["gpt-2-simple"], **asked, **few, "optimizer": optimizer})
    finetune(["ours.npz"], "models/124M", run_name="ours", training=training)
    before, expected, found = map(without_keys, ("models/124M", "checkpoint/theirs", "checkpoint/ours"))
    for name, tensor in expected.items():
        apart, way = np.linalg.norm(found[name] - tensor), np.linalg.norm(tensor - before[name])
        assert apart <= 3e-5 * np.linalg.norm(tensor), name
        assert apart <= share * way, f"{name}: apart by {apart} after a way of {way}"


# --- the console ---


def shapes(shown):
    """The lines that a program tells, numbers left out; what samples say is each one's own."""
    told = re.compile(r"Loading|dataset has|Training|\[\d|Saving|======== SAMPLE")
    return [re.sub(r"\d+(\.\d+)?", "N", line) for line in shown.splitlines() if told.match(line)]


def test_the_same_call_says_the_same(theirs, here, capsys):
    (here / "text.txt").write_text("The cat sat on the mat. " * 400, "utf-8")
    call = {"dataset": "text.txt", "steps": 7, "save_every": 3, "sample_every": 2, "sample_num": 2}
    call |= {"sample_length": 3, "print_every": 1, "accumulate_gradients": 1}
    expected = theirs("gpt_2_simple_finetune.py", json.dumps({**call, "run_name": "run1"}))
    expected += theirs("gpt_2_simple_finetune.py", json.dumps({**call, "run_name": "run1", "print_every": 4}))
    shutil.rmtree(here / "checkpoint")
    session = gpt2.start_tf_sess()
    gpt2.finetune(session, **call)
    gpt2.finetune(session, **{**call, "print_every": 4})
    assert shapes(capsys.readouterr().out) == shapes(expected)
