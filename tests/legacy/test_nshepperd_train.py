"""train.py: its flags, its lines on the console, its files."""

import hashlib
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.errors import ConfigError, ModelNotFound
from gpt2kit.legacy.nshepperd import encode, train
from gpt2kit.legacy.openai import generate_unconditional_samples
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run

pytestmark = pytest.mark.slow

# reference/INVENTORY.md, 1.2.4: every flag with its default.
FLAGS = {
    **{"model_name": "117M", "combine": "50000", "encoding": "utf-8", "batch_size": "1", "learning_rate": "2e-05"},
    **{"accumulate_gradients": "1", "memory_saving_gradients": "False", "only_train_transformer_layers": "False"},
    **{"optimizer": "adam", "noise": "0.0", "top_k": "40", "top_p": "0.0", "restore_from": "latest"},
    **{"run_name": "run1", "sample_every": "100", "sample_length": "1023", "sample_num": "1", "save_every": "1000"},
    **{"val_dataset": "None", "val_batch_size": "2", "val_batch_count": "40", "val_every": "0"},
}
SHORT = ("--dataset", "text.txt", "--sample_length", "8", "--learning_rate", "0.001")
LAYERS = re.compile(r"h\.\d+\.")


@pytest.fixture
def trained(have, text, capsys):
    """Standard output of train.py with the tiny models/117M and text.txt, stopped after so many steps."""
    have("117M")

    def run(*words, steps=2):
        assert train([*SHORT, *words], last_step=steps) == 0
        return capsys.readouterr().out

    return run


def lines(out):
    """What was printed, with numbers as N."""
    return re.sub(r"\d+(\.\d+)?", "N", out).splitlines()


def settings(run="run1"):
    return tomllib.loads(Path("checkpoint", run, "run.toml").read_text("utf-8"))["training"]


def losses(out, what="loss"):
    return re.findall(rf"{what}\s?=\s?(\S+)", out)


# --- flags ---


def test_every_flag_has_its_old_default(capsys):
    with pytest.raises(SystemExit):
        train(["--help"])
    told = " ".join(capsys.readouterr().out.partition("options:")[2].split())
    for name, default in FLAGS.items():
        shown = re.search(rf"--{name}\b.*?\(default: (.*?)\)", told)
        assert shown, name
        assert shown[1] == default, name


def test_without_a_dataset_it_is_a_mistake_of_usage():
    with pytest.raises(SystemExit) as stop:
        train([])
    assert stop.value.code == 2


def test_the_recipe_is_the_old_one(trained):
    trained()
    recipe = {"optimizer": "adamw", "beta2": 0.999, "weight_decay": 0.0, "clip_norm": 0.0, "schedule": "constant"}
    recipe |= {"warmup_steps": 0, "batch_size": 1, "accumulate": 1, "keep": 5, "validation_share": 0.0}
    recipe |= {"recompute": False, "only_train_transformer_layers": False, "noise": 0.0, "save_every": 1000}
    assert settings().items() >= recipe.items()


def test_accumulation_and_memory_saving_go_together(trained):
    """There, the two together ended the program."""
    trained("--batch_size", "2", "--accumulate_gradients", "3", "--memory_saving_gradients", "--noise", "0.5")
    asked = {"batch_size": 6, "accumulate": 3, "accumulate_as": "sum", "recompute": True, "noise": 0.5}
    assert settings().items() >= asked.items()


@pytest.mark.parametrize(
    ("name", "optimizer", "saves_memory", "only_layers"),
    [
        ("345M", "adam", True, True),
        ("345M", "sgd", True, False),
        ("355M", "adam", False, False),
        ("117M", "adam", False, False),
    ],
)
def test_only_the_name_345m_saves_memory_unasked(have, trained, name, optimizer, saves_memory, only_layers):
    if name != "117M":
        have(name)
    trained("--model_name", name, "--optimizer", optimizer, steps=1)
    assert (settings()["recompute"], settings()["only_train_transformer_layers"]) == (saves_memory, only_layers)


def test_only_the_layers_change_where_only_they_are_trained(trained):
    trained("--only_train_transformer_layers")
    before, after = open_checkpoint("117M").tensors, open_checkpoint("run1").tensors
    changed = {name for name, tensor in before.items() if not np.array_equal(tensor.read(), after[name].read())}
    assert changed == {name for name in before if LAYERS.match(name)}


@pytest.mark.parametrize("optimizer", ["Adam", "muon", ""])
def test_another_optimizer_is_refused(trained, optimizer):
    """There, the refusal was itself a TypeError."""
    with pytest.raises(ConfigError, match=f"^Bad optimizer: {optimizer}; there are adam and sgd$"):
        trained("--optimizer", optimizer)


# --- lines ---


def test_the_lines_come_in_the_old_order(trained):
    out = trained("--sample_every", "1", "--sample_num", "2", "--val_every", "2", "--save_every", "2")
    told = [line for line in lines(out) if re.match(r"Load|data|Train|\[|Sav|Gen|Cal|=", line)]
    validation, sample = ["Calculating validation loss...", "[N | N] validation loss = N"], ["Generating samples..."]
    sample += ["======== SAMPLE N ========"]
    step = ["[N | N] loss=N avg=N"]
    start = ["Loading checkpoint models/NM/model.ckpt", "Loading dataset...", "dataset has N tokens", "Training..."]
    save = ["Saving checkpoint/runN/model-N"]
    assert told == [*start, *validation, *sample, *step, *validation, *sample, *step, *save]
    assert re.search(r"^\[1 \| \d+\.\d\d\] loss=\d+\.\d\d avg=\d+\.\d\d$", out, re.MULTILINE)
    assert "SAMPLE 1" not in out, "only the last sample is shown"


def test_the_validation_loss_is_the_same_in_two_runs(trained):
    words = ("--val_every", "1", "--val_batch_count", "3", "--learning_rate", "1e-12")
    first, second = trained(*words), trained(*words, "--run_name", "run2")
    assert losses(first, "validation loss") == losses(second, "validation loss")
    assert len(set(losses(first, "validation loss"))) == 1


def test_validation_may_have_a_text_of_its_own(trained, here):
    (here / "other.txt").write_text("Quite another text, about nothing in particular.\n" * 20, "utf-8")
    words = ("--val_every", "1", "--learning_rate", "1e-12")
    own = losses(trained(*words, "--val_dataset", "other.txt"), "validation loss")
    assert set(own).isdisjoint(losses(trained(*words, "--run_name", "run2"), "validation loss"))


def test_the_same_text_has_the_same_tokens_however_it_comes(trained, here):
    """A file, a directory, a glob, and what encode.py made of it."""
    (here / "texts").mkdir()
    shutil.copy(here / "text.txt", here / "texts")
    encode(["text.txt", "text.npz"])
    told = [
        re.search(r"dataset has \d+ tokens", trained("--dataset", place, "--run_name", f"run{number}", steps=1))[0]
        for number, place in enumerate(["text.txt", "texts", "text*.txt", "text.npz"])
    ]
    assert len(set(told)) == 1


def test_another_encoding_is_read(trained, here):
    (here / "chinese.txt").write_text("床前明月光，疑是地上霜。\n" * 40, "gb18030")
    (here / "utf-8.txt").write_text("床前明月光，疑是地上霜。\n" * 40, "utf-8")
    first = trained("--dataset", "utf-8.txt")
    second = trained("--dataset", "chinese.txt", "--encoding", "gb18030", "--run_name", "run2")
    assert losses(first) == losses(second)


# --- files ---


def test_samples_and_checkpoints_lie_where_they_did(trained, here):
    trained("--sample_every", "2", "--sample_num", "3", "--save_every", "2", steps=4)
    assert sorted(path.name for path in (here / "samples" / "run1").iterdir()) == ["samples-2", "samples-4"]
    text = (here / "samples" / "run1" / "samples-4").read_text("utf-8")
    assert re.findall(r"^======== SAMPLE (\d) ========$", text, re.MULTILINE) == ["1", "2", "3"]
    run = Run.named("run1")
    assert (run.steps(), (run.directory / "counter").read_text("utf-8")) == ([2, 4], "4\n")
    assert [open_checkpoint(f"checkpoint/run1/model-{step}").step for step in (2, 4)] == [2, 4]


def test_a_run_has_the_surroundings_of_its_model(trained, here):
    trained()
    for name in ("encoder.json", "vocab.bpe"):
        assert (here / "checkpoint" / "run1" / name).is_file()
    hparams = here / "checkpoint" / "run1" / "hparams.json"
    assert hparams.read_text("utf-8").split() == [
        *("{", '"n_vocab":', "320,", '"n_ctx":', "64,", '"n_embd":', "48,", '"n_head":', "4,", '"n_layer":', "3", "}")
    ]


def test_the_same_line_goes_on(trained):
    trained()
    out = trained(steps=3)
    assert out.splitlines()[0] == "Loading checkpoint checkpoint/run1/model-2"
    assert re.findall(r"^\[(\d+) \|", out, re.MULTILINE) == ["3"]


def test_a_fresh_start_keeps_what_was_there(trained):
    trained(steps=3)
    out = trained("--restore_from", "fresh")
    assert out.startswith("Loading checkpoint models/117M/model.ckpt\n")
    assert (Run.named("run1").steps(), Run.named("run1-1").steps()) == ([2], [3])


def test_a_checkpoint_may_be_named_to_begin_from(trained):
    trained(steps=3)
    out = trained("--restore_from", "checkpoint/run1/model-3", "--run_name", "run2", "--learning_rate", "1e-12")
    assert re.match(r"Loading checkpoint checkpoint/run1\S*\n", out)
    former, later = (open_checkpoint(run).tensors["ln_f.weight"].read() for run in ("run1", "run2"))
    np.testing.assert_allclose(later, former, atol=1e-6)


# --- runs of the old program ---


@pytest.fixture
def old_run(shared, here, text):
    """A run that the real train.py left, of 4 steps, and its models/117M."""
    for name in ("checkpoint", "models"):
        shutil.copytree(shared / "fixtures" / "nshepperd" / name, here / name, copy_function=shutil.copyfile)
    for place in here.rglob("*"):
        place.chmod(0o755)
    return here / "checkpoint" / "run1"


def hashes(directory):
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_of_the_old_program_goes_on_and_models_is_left_alone(old_run, here, capsys):
    models, theirs = hashes(here / "models"), hashes(old_run)
    assert train(SHORT, last_step=6) == 0
    out = capsys.readouterr().out
    assert out.startswith("Loading checkpoint checkpoint/run1/model-4\n")
    assert re.findall(r"^\[(\d+) \|", out, re.MULTILINE) == ["5", "6"]
    assert generate_unconditional_samples(["run1", "--nsamples", "1", "--length", "5"]) == 0
    assert hashes(here / "models") == models
    kept = {path: content for path, content in theirs.items() if path.name != "counter"}
    assert kept.items() <= hashes(old_run).items()


# --- what cannot be ---


def test_a_missing_model_names_the_old_line_that_gets_it(text):
    with pytest.raises(ModelNotFound, match=r"models/345M: .*: gpt2 legacy download_model\.py 345M$"):
        train([*SHORT, "--model_name", "345M"])


def test_117m_may_lie_under_its_later_name(have, text, capsys):
    have("124M")
    assert train(SHORT, last_step=1) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Loading checkpoint models/124M/model.ckpt\n")
    assert "124M" not in err


def test_samples_longer_than_the_window_are_refused(trained):
    with pytest.raises(ConfigError, match=r"^Can't get samples longer than window size: 64$"):
        trained("--sample_length", "65")


@pytest.mark.parametrize("name", ["sample_num", "sample_length", "save_every", "batch_size"])
def test_none_at_all_is_refused_before_the_first_step(trained, here, name):
    with pytest.raises(ConfigError, match=f"{name} must be 1 or more, got 0"):
        trained(f"--{name}", "0")
    assert not (here / "checkpoint").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_saves(have, text, here):
    have("117M")
    words = [sys.executable, "-m", "gpt2kit", "legacy", "train.py", *SHORT]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    while "[3 |" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (0, False)
    assert "interrupted\n" in out
    step = Run.named("run1").latest()
    assert out.endswith(f"Saving checkpoint/run1/model-{step}\n")
