import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpt2kit.errors import ConfigError, FormatError, ModelNotFound
from gpt2kit.resolve import known_directory, open_checkpoint
from gpt2kit.runs import Run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of our own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def put(golden):
    """Put a model that can be told apart somewhere: every weight of its last bias is `mark`."""

    def place(directory, mark):
        shutil.copytree(
            golden / "hf-safetensors", directory, ignore=shutil.ignore_patterns("*.npz", "sharded", "base*")
        )
        tensors = load_file(directory / "model.safetensors")
        tensors["transformer.ln_f.bias"][:] = mark
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

    return place


@pytest.fixture
def run1(here, put):
    """A run with the steps 100, the best, and 200, the newest; weights are marked with the step."""
    put(here / "checkpoint" / "run1", 0)
    run = Run.named("run1")
    weights = (run.directory / "model.safetensors").read_bytes()
    tensors = load_file(run.directory / "model.safetensors")
    for step, best in ((100, True), (200, False)):
        with run.saving(step, {}, best=best, keep=9) as directory:
            (directory / "model.safetensors").write_bytes(weights)
            tensors["transformer.ln_f.bias"][:] = step
            save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return run


def mark_of(checkpoint):
    return np.unique(checkpoint.tensors["ln_f.bias"].read()).tolist()


# --- what a name means ---


def test_a_directory_is_itself(here, put):
    put(here / "mine", 7)
    checkpoint = open_checkpoint("mine")
    assert (mark_of(checkpoint), checkpoint.origin) == ([7], "mine")


def test_a_path_may_be_a_path_or_a_string(here, put):
    put(here / "mine", 7)
    assert mark_of(open_checkpoint(here / "mine")) == mark_of(open_checkpoint(str(here / "mine"))) == [7]


def test_a_file_of_weights_is_its_model(here, put):
    put(here / "mine", 7)
    assert mark_of(open_checkpoint("mine/model.safetensors")) == [7]


@pytest.mark.parametrize(
    ("ref", "step"),
    [
        ("run1", 200),
        ("run1@latest", 200),
        ("run1@best", 100),
        ("run1@100", 100),
        ("run1@200", 200),
        ("run1@000000100", 100),
        ("checkpoint/run1", 200),
        ("checkpoint/run1@100", 100),
        ("checkpoint/run1@best", 100),
    ],
)
def test_a_run_is_its_newest_step_or_the_one_asked_for(run1, ref, step):
    assert mark_of(open_checkpoint(ref)) == [step]


@pytest.mark.parametrize(
    ("ref", "step"), [("run1", 200), ("run1@best", 100), ("run1@100", 100), ("checkpoint/run1", 200)]
)
def test_a_run_says_which_step_it_was(run1, ref, step):
    assert open_checkpoint(ref).step == step


def test_a_run_brings_its_tokenizer_to_every_step(run1, golden):
    files = open_checkpoint("run1@100").tokenizer_files
    assert files["vocab.json"] == (golden / "hf-safetensors" / "vocab.json").read_bytes()


@pytest.mark.parametrize("name", ["124M", "117M", "gpt2", "openai-community/gpt2", "hf:openai-community/gpt2"])
def test_a_known_name_is_found_under_any_of_its_names(here, put, name):
    put(here / "models" / "124M", 7)
    assert mark_of(open_checkpoint(name)) == [7]


def test_a_known_model_may_lie_under_its_hub_name(here, put):
    put(here / "models" / "gpt2-medium", 7)
    assert mark_of(open_checkpoint("355M")) == [7]


def test_whatever_lies_in_models_has_a_name(here, put):
    put(here / "models" / "mine", 7)
    assert mark_of(open_checkpoint("mine")) == [7]


def test_any_repository_of_a_hub_lies_under_its_owner(here, put):
    put(here / "models" / "someone" / "their-gpt2", 7)
    assert mark_of(open_checkpoint("hf:someone/their-gpt2")) == [7]


def test_a_download_that_was_broken_off_is_told_from_a_model(here):
    folder = here / "models" / "124M"
    folder.mkdir(parents=True)
    (folder / ".download.lock").touch()
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"', "utf-8")
    with pytest.raises(ModelNotFound, match=r"models/124M: its download is not finished; .*: gpt2 download 117M"):
        open_checkpoint("117M")


@pytest.mark.parametrize("ref", ["", "@", " ", "a" * 5000, "run1@" + "9" * 5000, "a\0b", "hf:"])
def test_what_is_no_name_is_refused(ref):
    with pytest.raises(ModelNotFound):
        open_checkpoint(ref)


# --- old runs ---


@pytest.fixture
def old_run(here, shared):
    """A run that nshepperd's code left, with the steps 2 and 4, and the settings in models/117M."""
    shutil.copytree(shared / "fixtures" / "nshepperd" / "checkpoint" / "run1", here / "checkpoint" / "old")
    shutil.copytree(shared / "fixtures" / "nshepperd" / "models", here / "models")
    return here / "checkpoint" / "old"


@pytest.mark.parametrize(
    ("ref", "step"),
    [("old", 4), ("old@2", 2), ("checkpoint/old", 4), ("checkpoint/old@2", 2), ("checkpoint/old/model-2", 2)],
)
def test_a_run_of_an_older_program_is_its_newest_step_or_the_one_asked_for(old_run, ref, step):
    checkpoint = open_checkpoint(ref)
    assert (checkpoint.step, checkpoint.config.width, "encoder.json" in checkpoint.tokenizer_files) == (step, 16, True)


def test_latest_is_the_newest_of_an_old_run_too(old_run):
    assert open_checkpoint("old@latest").step == 4


def test_two_steps_at_once_are_refused(old_run):
    with pytest.raises(ConfigError, match="old@2 names a step, and 4 is asked for as well"):
        open_checkpoint("old@2", step=4)


@pytest.mark.parametrize("ref", ["old@3", "old@best"])
def test_a_step_that_an_old_run_lacks_is_refused(old_run, ref):
    with pytest.raises((ModelNotFound, FormatError), match=r"old"):
        open_checkpoint(ref)


def test_a_step_may_be_asked_for_apart(old_run, run1):
    assert (open_checkpoint("old", step=2).step, open_checkpoint("run1", step=100).step) == (2, 100)


def test_a_model_that_was_not_trained_here_has_no_steps(here, put):
    put(here / "mine", 7)
    with pytest.raises(ModelNotFound, match="mine: one model, not the steps of a training"):
        open_checkpoint("mine@3")


@pytest.mark.parametrize("suffix", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_a_step_of_our_own_run_answers_to_what_the_old_programs_called_it(run1, suffix):
    checkpoint = open_checkpoint(f"checkpoint/run1/model-100{suffix}")
    assert (checkpoint.step, mark_of(checkpoint)) == (100, [100])


@pytest.mark.parametrize("name", ["model-150", "model-1000000", "model-150.index"])
def test_an_old_name_of_a_step_that_is_not_there_is_refused(run1, name):
    with pytest.raises(ModelNotFound, match=r"checkpoint/run1: there is no step 1.*kept are: 100, 200"):
        open_checkpoint(f"checkpoint/run1/{name}")


@pytest.mark.parametrize("name", ["model-", "model-1x", "model-100.txt", "model--1", "models-100"])
def test_what_no_old_program_called_a_step_is_none(run1, name):
    with pytest.raises(ModelNotFound, match="no model"):
        open_checkpoint(f"checkpoint/run1/{name}")


def test_an_old_name_and_a_step_are_two_steps(run1):
    with pytest.raises(ConfigError, match="model-100 names a step, and 200 is asked for as well"):
        open_checkpoint("checkpoint/run1/model-100", step=200)


def test_files_of_an_older_program_come_before_our_steps(run1, old_run):
    """A run that was begun there and went on here."""
    for file in old_run.glob("model-2.*"):
        shutil.copy(file, run1.directory / file.name.replace("-2", "-100"))
    assert open_checkpoint("checkpoint/run1/model-100").config.width == 16
    assert open_checkpoint("run1@100").config.width == 40


@pytest.mark.parametrize(
    "ref", ["run1@2", "checkpoint/run1@2", "checkpoint/run1/model-2", "checkpoint/run1/model-2.index"]
)
def test_a_step_that_only_the_older_program_saved_is_opened(run1, old_run, ref):
    for file in old_run.glob("model-2.*"):
        shutil.copy(file, run1.directory)
    checkpoint = open_checkpoint(ref)
    assert (checkpoint.step, checkpoint.config.width) == (2, 16)
    assert open_checkpoint("run1").step == 200


# --- what lies in models/ ---


@pytest.mark.parametrize("name", ["117M", "124M", "gpt2", "hf:openai-community/gpt2"])
def test_a_known_directory_answers_to_every_name_of_its_model(here, name):
    (here / "models" / "117M").mkdir(parents=True)
    assert known_directory(name) == Path("models/117M")


@pytest.mark.parametrize("name", ["345M", "run1", "", "/", "../models"])
def test_where_there_is_no_such_directory_it_is_none(here, name):
    (here / "models" / "117M").mkdir(parents=True)
    assert known_directory(name) is None


# --- who comes first ---


def test_the_name_asked_for_comes_before_its_other_names(here, put):
    put(here / "models" / "124M", 1)
    put(here / "models" / "117M", 2)
    assert [mark_of(open_checkpoint(name)) for name in ("117M", "124M", "gpt2")] == [[2], [1], [1]]


def test_a_path_comes_before_a_run(here, put, run1):
    put(here / "run1", 7)
    assert mark_of(open_checkpoint("run1")) == [7]


def test_a_run_comes_before_a_known_name(here, put, run1):
    put(here / "models" / "124M", 7)
    run1.directory.rename(here / "checkpoint" / "124M")
    assert mark_of(open_checkpoint("124M")) == [200]


# --- what to say when nothing answers ---


@pytest.mark.parametrize("name", ["117M", "gpt2", "hf:someone/their-gpt2"])
def test_a_name_without_files_says_how_to_get_them(name):
    with pytest.raises(ModelNotFound, match=rf"'{name}'.*not in models/; get it with: gpt2 download {name}$"):
        open_checkpoint(name)


def test_a_slip_is_answered_with_the_name_meant():
    with pytest.raises(ModelNotFound, match=r"no model 'gpt2-mediun'.*did you mean 'gpt2-medium'\?"):
        open_checkpoint("gpt2-mediun")


def test_an_unknown_name_is_answered_with_the_runs_there_are(run1):
    with pytest.raises(ModelNotFound, match=r"no model 'whatever'.*runs here: run1"):
        open_checkpoint("whatever")


def test_without_runs_the_next_step_is_named():
    with pytest.raises(ModelNotFound, match=r"make a new model with: gpt2 init"):
        open_checkpoint("whatever")


@pytest.mark.parametrize("which", ["150", "newest", "-1", "²"])
def test_a_step_that_is_not_there_is_refused(run1, which):
    with pytest.raises(ModelNotFound, match=r"run1"):
        open_checkpoint(f"run1@{which}")


def test_a_run_that_was_never_validated_has_no_best(run1):
    (run1.directory / "best").unlink()
    with pytest.raises(ModelNotFound, match=r"no snapshot answers to 'best'"):
        open_checkpoint("run1@best")


def test_a_run_without_a_snapshot_yet_says_so(here):
    (here / "checkpoint" / "young").mkdir(parents=True)
    with pytest.raises(ModelNotFound, match=r"young: has saved nothing yet; train it first"):
        open_checkpoint("young")


@pytest.mark.parametrize("ref", ["young@latest", "young@best", "checkpoint/young"])
def test_whatever_is_asked_of_a_run_without_a_snapshot_it_says_so(here, ref):
    (here / "checkpoint" / "young").mkdir(parents=True)
    with pytest.raises(ModelNotFound, match=r"young: has saved nothing yet; train it first"):
        open_checkpoint(ref)


def test_a_run_may_have_a_blank_in_its_name(here, run1):
    run1.directory.rename(here / "checkpoint" / "my run")
    assert [open_checkpoint(ref).step for ref in ("my run", "my run@100", "checkpoint/my run@best")] == [200, 100, 100]


def test_a_step_of_no_run_is_not_found():
    with pytest.raises(ModelNotFound, match="'nothing@5'"):
        open_checkpoint("nothing@5")


def test_a_directory_without_a_checkpoint_says_what_it_holds(here):
    (here / "texts").mkdir()
    (here / "texts" / "poem.txt").write_text("x", encoding="utf-8")
    with pytest.raises(FormatError, match=r"^texts: no checkpoint in a known format, holding poem\.txt"):
        open_checkpoint("texts")


@pytest.mark.parametrize("ref", ["../x", "a/../../b", "checkpoint/../.."])
def test_a_path_that_does_not_exist_or_holds_nothing_is_never_a_run(ref, here):
    with pytest.raises((ModelNotFound, FormatError)):
        open_checkpoint(ref)


def test_known_names_and_runs_may_lie_elsewhere(here, put, run1):
    put(here / "old" / "models" / "124M", 3)
    (here / "checkpoint").rename(here / "old" / "runs")
    elsewhere = {"models": here / "old" / "models", "runs": here / "old" / "runs"}
    assert mark_of(open_checkpoint("124M", **elsewhere)) == [3]
    assert open_checkpoint("run1@best", **elsewhere).step == 100
    with pytest.raises(ModelNotFound, match=r"not in .*old/models/"):
        open_checkpoint("355M", **elsewhere)
    with pytest.raises(ModelNotFound, match="runs here: run1"):
        open_checkpoint("run2", **elsewhere)
