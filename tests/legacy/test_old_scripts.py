"""What scripts that were written for gpt-2-simple do besides what its README shows."""

import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gpt2kit import open_checkpoint
from gpt2kit import simple as gpt2
from gpt2kit.errors import DataError, FormatError
from gpt2kit.legacy.nshepperd import train
from gpt2kit.runs import Run

GREEDY = {"length": 8, "top_k": 1, "return_as_list": True}


@pytest.fixture
def learn(text, have):
    """learn(steps=2): finetunes models/124M a little."""
    have("124M")

    def finetune(sess=None, dataset=text, **asked):
        small = {"sample_length": 5, "accumulate_gradients": 1, "steps": 1}
        gpt2.finetune(sess or gpt2.start_tf_sess(), dataset, **{**small, **asked})

    return finetune


@pytest.fixture
def old_run(here, shared):
    """old_run("run1"): a run of two steps that gpt-2-simple 0.8.1 has left."""

    def one(name):
        directory = here / "checkpoint" / name
        shutil.copytree(shared / "fixtures" / "gpt2simple" / "checkpoint" / "run1", directory)
        return directory

    return one


def weights(place):
    return {name: tensor.read_float32() for name, tensor in open_checkpoint(place).tensors.items()}


def written_with(place):
    """The likeliest text of the model that lies there."""
    session = gpt2.start_tf_sess()
    gpt2.load_gpt2(session, run_name=place.name, checkpoint_dir=str(place.parent))
    return gpt2.generate(session, **GREEDY)


# --- importing ---


def test_the_functions_lie_in_a_module_of_the_package_too():
    package = pytest.importorskip("gpt_2_simple")
    from gpt_2_simple import gpt_2

    assert {name: getattr(gpt_2, name) for name in gpt2.__all__} == {
        name: getattr(package, name) for name in gpt2.__all__
    }


def test_this_module_can_be_imported_by_its_whole_name():
    pytest.importorskip("gpt_2_simple")
    import gpt_2_simple.gpt_2 as module

    assert module.finetune is gpt2.finetune


# --- values of parameters ---


def test_a_top_p_above_1_keeps_all_tokens(sess):
    asked = {"length": 8, "seed": 1, "return_as_list": True}
    assert gpt2.generate(sess, top_p=100, top_k=1, **asked) == gpt2.generate(sess, top_k=0, **asked)


def test_a_top_p_of_1_takes_the_place_of_top_k(sess):
    asked = {"length": 8, "seed": 1, "return_as_list": True}
    assert gpt2.generate(sess, top_p=1.0, top_k=1, **asked) == gpt2.generate(sess, top_k=0, **asked)


def test_a_top_p_below_0_is_off(sess):
    assert gpt2.generate(sess, top_p=-1, **GREEDY) == gpt2.generate(sess, **GREEDY)


def test_numbers_that_came_as_floats_are_taken(sess):
    assert len(gpt2.generate(sess, nsamples=2.0, batch_size=1.0, **GREEDY)) == 2


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"length": 0}, {"top_k": -1}], ids=str)
def test_a_value_that_cannot_be_is_a_value_error_and_touches_no_file(here, sess, wrong):
    (here / "out.txt").write_text("before", encoding="utf-8")
    for name in ("out.txt", "new.txt"):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            gpt2.generate(sess, destination_path=name, **wrong)
    assert (here / "out.txt").read_text("utf-8") == "before"
    assert not (here / "new.txt").exists()


@pytest.mark.slow
def test_a_place_to_begin_from_that_is_not_there_is_a_file_not_found_error(learn, here):
    with pytest.raises(FileNotFoundError, match="checkpoint/none"):
        learn(restore_from="checkpoint/none")
    assert not (here / "checkpoint").exists()


@pytest.mark.slow
def test_to_save_never_is_a_value_error(learn, here):
    with pytest.raises(ValueError, match="save_every must be 1 or more, got 0"):
        learn(save_every=0)
    assert not (here / "checkpoint").exists()


@pytest.mark.slow
def test_a_learning_rate_of_0_changes_no_weight(learn, here, golden):
    learn(learning_rate=0, steps=2)
    before, after = weights(golden / "openai-tiny"), weights(here / "checkpoint" / "run1")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor)


# --- which model writes ---


@pytest.mark.parametrize("as_list", [True, False])
def test_generating_without_a_model_tells_which_is_loaded(have, capsys, as_list):
    have("124M")
    session = gpt2.start_tf_sess()
    for told in ("Loading pretrained model models/124M/model.ckpt\n", ""):  # once
        gpt2.generate(session, model_name="124M", length=3, return_as_list=as_list)
        assert capsys.readouterr().out.startswith(told)
        assert gpt2.generate(session, length=3, return_as_list=True)
        assert capsys.readouterr().out == ""


def test_generating_without_a_model_tells_the_step_of_a_run(old_run, capsys):
    old_run("run1")
    gpt2.generate(gpt2.start_tf_sess(), length=3, return_as_list=True)
    assert capsys.readouterr().out == "Loading checkpoint checkpoint/run1/model-2\n"


def test_a_text_to_learn_that_is_not_there_costs_no_model(sess):
    before = gpt2.generate(sess, **GREEDY)
    with pytest.raises(DataError, match=r"missing\.txt"):
        gpt2.finetune(sess, "missing.txt", sample_length=5)
    assert gpt2.generate(sess, **GREEDY) == before


def test_where_a_model_cannot_be_opened_again_no_other_takes_its_place(have, old_run):
    run = old_run("run1")
    session = gpt2.start_tf_sess()
    gpt2.load_gpt2(session)
    have("124M")
    shutil.rmtree(run)
    assert gpt2.generate(session, **GREEDY)
    with pytest.raises(FormatError, match="gone or changed"):
        gpt2.generate(session, nsamples=2, batch_size=2, model_name="124M", **GREEDY)
    for asked in ({}, {"model_name": "124M"}):
        with pytest.raises(FormatError, match="gone or changed"):
            gpt2.generate(session, **asked, **GREEDY)
    gpt2.load_gpt2(session, model_name="124M")
    assert gpt2.generate(session, **GREEDY)


# --- names of runs ---


@pytest.mark.slow
def test_the_second_parameter_of_load_gpt2_was_the_run(learn, here, capsys):
    learn(run_name="run1")
    learn(run_name="run2", steps=2, learning_rate=0.01)
    capsys.readouterr()
    session = gpt2.start_tf_sess()
    gpt2.load_gpt2(session, "run2")
    assert capsys.readouterr().out == "Loading checkpoint checkpoint/run2/model-2\n"
    gpt2.load_gpt2(session, "latest", "run1")
    assert capsys.readouterr().out == "Loading checkpoint checkpoint/run1/model-1\n"


def test_it_was_also_for_a_run_of_the_old_program(old_run, capsys):
    old_run("run2")
    gpt2.load_gpt2(gpt2.start_tf_sess(), "run2")
    assert capsys.readouterr().out == "Loading checkpoint checkpoint/run2/model-2\n"


@pytest.mark.slow
def test_a_run_that_is_called_latest_does_not_take_the_place_of_others(old_run, learn, capsys):
    old_run("run1")
    learn(run_name="latest")
    capsys.readouterr()
    gpt2.load_gpt2(gpt2.start_tf_sess(), run_name="run1")
    assert capsys.readouterr().out == "Loading checkpoint checkpoint/run1/model-2\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"run_name": "", "checkpoint_dir": "models/temp/"}, "models/temp"),
        ({"run_name": "sub/mine"}, "checkpoint/sub/mine"),
        ({"run_name": "my run"}, "checkpoint/my run"),
    ],
    ids=["none", "a path", "with a blank"],
)
def test_a_run_is_found_by_the_name_that_it_was_given(learn, here, capsys, asked, place):
    session = gpt2.start_tf_sess()
    learn(session, steps=2, learning_rate=0.01, **asked)
    assert f"Saving {place}/model-2\n" in capsys.readouterr().out
    assert (here / place / "counter").read_text("utf-8") == "2\n"
    learnt = gpt2.generate(session, **GREEDY)
    loaded = gpt2.start_tf_sess()
    gpt2.load_gpt2(loaded, **asked)
    assert f"Loading checkpoint {place}/model-2\n" in capsys.readouterr().out
    assert gpt2.generate(loaded, **GREEDY, **asked) == learnt
    assert gpt2.generate(gpt2.start_tf_sess(), **GREEDY, **asked) == learnt
    learn(learning_rate=0.01, **asked)
    assert (here / place / "counter").read_text("utf-8") == "3\n"


# --- runs that go on ---


def events(directory):
    return {path.name for path in directory.glob("events.out.tfevents.*")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:run1 goes on with")
def test_overwriting_spares_our_own_events(old_run, learn):
    pytest.importorskip("tensorboard")
    run = old_run("run1")
    [theirs] = events(run)
    learn()
    ours = events(run) - {theirs}
    learn(overwrite=True)
    assert theirs not in events(run)
    assert ours < events(run)


@pytest.fixture
def torn(learn, here):
    """A run of two steps, the newer of which is cut short."""
    learn(steps=2, save_every=1, max_checkpoints=2)
    model = here / "checkpoint" / "run1" / "steps" / "000000002" / "model.safetensors"
    with model.open("rb+") as file:
        file.truncate(model.stat().st_size // 2)
    return Run.named("run1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:run1 goes on with")
def test_finetune_goes_on_from_the_last_step_that_is_whole(torn, learn, capsys):
    capsys.readouterr()
    with pytest.warns(match="going on from step 1"):
        learn(steps=2)
    shown = capsys.readouterr().out
    assert shown.startswith("Loading checkpoint checkpoint/run1/model-1\n")
    assert re.findall(r"^\[(\d+) \|", shown, re.MULTILINE) == ["2", "3"]
    assert torn.newest_sound() == (3, [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:run1 goes on with")
def test_train_py_goes_on_from_the_last_step_that_is_whole(torn, text, capsys):
    capsys.readouterr()
    with pytest.warns(match="going on from step 1"):
        train(["--dataset", text, "--sample_length", "5"], last_step=3)
    shown = capsys.readouterr().out
    assert shown.startswith("Loading checkpoint checkpoint/run1/model-1\n")
    assert re.findall(r"^\[(\d+) \|", shown, re.MULTILINE) == ["2", "3"]
    assert torn.newest_sound() == (3, [])


# --- `| head -3`, and then Ctrl-C ---

TRAIN = ["-m", "gpt2kit", "legacy", "train.py", "--dataset", "text.txt", "--sample_length", "5"]
FINETUNE = ["-m", "gpt2kit", "finetune", "text.txt", "--model", "models/124M", "--steps", "1000000"]
SCRIPT = """
import gpt2kit.simple as gpt2
gpt2.finetune(gpt2.start_tf_sess(), "text.txt", sample_length=5)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize(
    ("words", "errors"),
    [
        (TRAIN, subprocess.DEVNULL),
        (TRAIN, subprocess.STDOUT),
        (["-c", SCRIPT], subprocess.STDOUT),
        (FINETUNE, subprocess.STDOUT),
    ],
    ids=["train.py", "train.py with its errors", "a script with its errors", "gpt2 finetune with its errors"],
)
def test_a_training_that_nobody_looks_at_any_more_goes_on_and_is_saved(have, text, words, errors):
    have("124M")
    run = Run.named("run1")
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=errors)
    try:
        for _ in range(3):
            assert process.stdout.readline()
        process.stdout.close()
        while len(run.metrics("train")) < 20:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
    step, damage = run.newest_sound()
    assert (step, damage) == (run.metrics("train")[-1]["step"], [])
    assert step >= 20
