import builtins
import json
import re
import shutil
import signal

import numpy as np
import pytest

from gpt2kit import open_checkpoint
from gpt2kit import simple as gpt2
from gpt2kit.config.toml_file import read_toml
from gpt2kit.legacy.gpt_2_simple_errors import BadValue

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:run1 goes on with")]

LINE = re.compile(r"\[\d+ \| \d+\.\d{2}\] loss=\d+\.\d{2} avg=\d+\.\d{2}")


@pytest.fixture
def run(here, text, have):
    """run(steps=3): trains models/124M, a little at a time. Returns the run's directory."""
    have("124M")

    def train(sess=None, **asked):
        small = {"sample_length": 5, "accumulate_gradients": 1}
        sess = sess or gpt2.start_tf_sess()
        assert gpt2.finetune(sess, text, **{**small, **asked}) is None
        return here / "checkpoint" / asked.get("run_name", "run1")

    return train


@pytest.fixture
def old_run(here, shared):
    """A run of two steps that gpt-2-simple 0.8.1 has left."""
    directory = here / "checkpoint" / "run1"
    shutil.copytree(shared / "fixtures" / "gpt2simple" / "checkpoint" / "run1", directory)
    return directory


def settings(directory):
    return read_toml(directory / "run.toml")["training"]


def weights(directory):
    return {name: tensor.read_float32() for name, tensor in open_checkpoint(directory).tensors.items()}


def steps(directory):
    return sorted(int(place.name) for place in (directory / "steps").iterdir())


# --- the console ---


def test_the_lines_are_those_of_old(run, capsys):
    run(steps=4, save_every=2)
    shown = capsys.readouterr().out.splitlines()
    assert shown[:4] == [
        "Loading checkpoint models/124M/model.ckpt",
        "Loading dataset...",
        f"dataset has {shown[2].split()[2]} tokens",
        "Training...",
    ]
    assert [line for line in shown[4:] if not LINE.fullmatch(line)] == [
        "Saving checkpoint/run1/model-2",
        "Saving checkpoint/run1/model-4",
    ]
    assert [line.split()[0] for line in shown[4:] if LINE.fullmatch(line)] == ["[1", "[2", "[3", "[4"]


def test_only_every_so_many_steps_have_a_line(run, capsys):
    run(steps=5, print_every=2)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown if LINE.fullmatch(line)] == ["[2", "[4"]


@pytest.mark.parametrize(("name", "told"), [("124M", False), ("117M", False), ("355M", True), ("345M", True)])
def test_larger_models_are_given_advice(here, text, have, capsys, name, told):
    have(name)
    gpt2.finetune(gpt2.start_tf_sess(), text, steps=1, model_name=name, sample_length=5)
    shown = capsys.readouterr().out
    advice = (
        "For larger models, the recommended finetune() parameters are:\n\tuse_memory_saving_gradients = True\n"
        "\tonly_train_transformer_layers = True\n\taccumulate_gradients = 1\n\n"
    )
    assert shown.startswith(advice) == told


def test_a_model_is_found_by_the_other_of_its_names(here, text, have):
    have("355M")
    gpt2.finetune(gpt2.start_tf_sess(), text, steps=1, model_name="345M", sample_length=5)
    assert (here / "checkpoint" / "run1" / "counter").exists()


# --- what is on disk ---


def test_a_run_holds_what_the_old_program_put_there(run, golden):
    directory = run(steps=4, save_every=2)
    for name in ("hparams.json", "encoder.json", "vocab.bpe"):
        ours, theirs = ((place / name).read_text("utf-8") for place in (directory, golden / "openai-tiny"))
        assert ours == theirs if name == "vocab.bpe" else json.loads(ours) == json.loads(theirs)
    assert (directory / "counter").read_text("utf-8") == "4\n"
    assert steps(directory) == [4]


@pytest.mark.parametrize(("kept", "expected"), [(2, [3, 4]), (0, [1, 2, 3, 4])])
def test_as_many_checkpoints_are_kept_as_were_asked_for(run, kept, expected):
    assert steps(run(steps=4, save_every=1, max_checkpoints=kept)) == expected


def test_samples_lie_where_they_lay_and_are_named_one_ahead(here, run, capsys):
    run(steps=4, sample_every=2, sample_num=2)
    [sample] = (here / "samples" / "run1").iterdir()
    assert sample.name == "samples-3"
    first, second = (
        sample.read_text("utf-8").removeprefix("======== SAMPLE 1 ========\n").split("\n\n======== SAMPLE 2 ========\n")
    )
    assert first
    assert f"======== SAMPLE 2 ========\n{second}\n" in capsys.readouterr().out


def test_a_run_can_lie_elsewhere(here, run):
    run(steps=1, checkpoint_dir="elsewhere", run_name="second")
    assert (here / "elsewhere" / "second" / "counter").exists()
    assert not (here / "checkpoint" / "second").exists()


# --- how it learns ---


def test_the_defaults_are_those_of_old(run):
    asked = settings(run(steps=1, accumulate_gradients=5))
    expected = {
        "batch_size": 5,
        "accumulate": 5,
        "accumulate_as": "sum",
        "optimizer": "adamw",
        "learning_rate": 0.0001,
        "schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "beta2": 0.999,
        "clip_norm": 0.0,
        "validation_share": 0.0,
        "save_every": 1000,
        "keep": 1,
    }
    assert {name: asked[name] for name in expected} == expected


def test_a_batch_is_all_that_is_accumulated(run):
    asked = settings(run(steps=1, batch_size=3, accumulate_gradients=2))
    assert (asked["batch_size"], asked["accumulate"]) == (6, 2)


def test_saving_memory_works_together_with_accumulation(run):
    asked = settings(run(steps=1, use_memory_saving_gradients=True, accumulate_gradients=2))
    assert (asked["recompute"], asked["accumulate"]) == (True, 2)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_both_optimizers_learn_and_can_spare_the_embeddings(run, golden, optimizer):
    after = weights(run(steps=2, optimizer=optimizer, only_train_transformer_layers=True))
    before = weights(golden / "openai-tiny")
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {"wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"}


@pytest.mark.parametrize("dataset", ["rows.csv", "rows.npz", "rows.c*", "rows"])
def test_a_text_in_any_form_has_the_same_tokens(here, have, capsys, dataset):
    have("124M")
    (here / "rows").mkdir()
    for place in (here, here / "rows"):
        (place / "rows.csv").write_text("text\n" + '"Ross: ""Hi"", he said."\nRachel: Hi!\n' * 30, encoding="utf-8")
    gpt2.encode_dataset("rows.csv", out_path="rows.npz")
    with np.load(here / "rows.npz") as stored:
        tokens = stored["arr_0"].size
    gpt2.finetune(gpt2.start_tf_sess(), dataset, steps=1, sample_length=5)
    assert f"dataset has {tokens} tokens\n" in capsys.readouterr().out


# --- going on ---


def test_latest_goes_on_and_fresh_begins_again(here, run, capsys):
    run(steps=4)
    directory = run(steps=2)
    assert (directory / "counter").read_text("utf-8") == "6\n"
    assert "Loading checkpoint checkpoint/run1/model-4\n" in capsys.readouterr().out
    run(steps=1, restore_from="fresh")
    assert (directory / "counter").read_text("utf-8") == "1\n"
    assert (here / "checkpoint" / "run1-1" / "counter").read_text("utf-8") == "6\n"
    assert (directory / "hparams.json").exists()


def test_a_directory_can_be_begun_from(here, run):
    first = weights(run(steps=2, run_name="first"))
    second = run(steps=1, run_name="second", restore_from="checkpoint/first", learning_rate=1e-9)
    assert (second / "counter").read_text("utf-8") == "1\n"
    for name, tensor in weights(second).items():
        np.testing.assert_allclose(tensor, first[name], atol=1e-6)


def test_going_on_needs_no_model(here, run):
    run(steps=1)
    shutil.rmtree(here / "models")
    assert (run(steps=1) / "counter").read_text("utf-8") == "2\n"


def test_steps_may_be_a_word_as_the_command_line_gave_them(run):
    assert (run(steps="2") / "counter").read_text("utf-8") == "2\n"


@pytest.mark.parametrize("steps", [-1, 0, None, "-1"])
def test_without_steps_it_learns_until_it_is_interrupted(run, capsys, monkeypatch, steps):
    show = builtins.print

    def interrupt_at_3(*words, **how):
        show(*words, **how)
        if str(words[0]).startswith("[3 |"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(builtins, "print", interrupt_at_3)
    sess = gpt2.start_tf_sess()
    directory = run(sess, steps=steps)
    shown = capsys.readouterr().out.splitlines()
    assert shown[shown.index("interrupted") + 1 :][-1].startswith("Saving checkpoint/run1/model-")
    assert int((directory / "counter").read_text("utf-8")) in (3, 4)
    assert gpt2.generate(sess, length=3, return_as_list=True)


# --- runs of the old program ---


def test_a_run_of_the_old_program_goes_on(old_run, text, here, capsys):
    before = {path.name: path.read_bytes() for path in old_run.iterdir()}
    gpt2.finetune(gpt2.start_tf_sess(), text, steps=2, sample_length=5, accumulate_gradients=1)
    shown = capsys.readouterr().out
    assert shown.startswith("Loading checkpoint checkpoint/run1/model-2\n")
    assert "\n[3 | " in shown
    assert "Saving checkpoint/run1/model-4\n" in shown
    assert (old_run / "counter").read_text("utf-8") == "4\n"
    left = {name: (old_run / name).read_bytes() for name in before if name.startswith(("model-", "events"))}
    assert left == {name: before[name] for name in left}
    assert len(left) == 4


def test_overwriting_removes_what_the_old_program_had_saved_there(old_run, text):
    before = {path.name for path in old_run.iterdir()}
    gpt2.finetune(gpt2.start_tf_sess(), text, steps=1, sample_length=5, accumulate_gradients=1, overwrite=True)
    gone = before - {path.name for path in old_run.iterdir()}
    assert gone == {name for name in before if name.startswith(("model-", "events"))} | {"checkpoint"}
    gpt2.load_gpt2(gpt2.start_tf_sess())


def test_nothing_is_removed_before_there_is_something_new(old_run, have, here):
    before = {path.name for path in old_run.iterdir()}
    with pytest.raises(Exception, match="no such file"):
        gpt2.finetune(gpt2.start_tf_sess(), "missing.txt", steps=1, sample_length=5, overwrite=True)
    assert before <= {path.name for path in old_run.iterdir()}


# --- wrong input ---


def test_a_missing_model_is_asked_for(here, text, capsys):
    with pytest.raises(FileNotFoundError, match=r"models/124M: no such model; .*gpt2\.download_gpt2"):
        gpt2.finetune(gpt2.start_tf_sess(), text, steps=1)
    assert capsys.readouterr().out == "You need to download the GPT-2 model first via download_gpt2()\n"
    assert not (here / "checkpoint").exists()


def test_samples_longer_than_the_window_are_refused(run):
    with pytest.raises(ValueError, match=r"^Can't get samples longer than window size: 64$"):
        run(steps=1, sample_length=65)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"optimizer": "adamw"}, "optimizer must be 'adam' or 'sgd', got 'adamw'"),
        ({"steps": "many"}, "steps must be a whole number, got 'many'"),
    ],
)
def test_values_that_cannot_be_are_named(run, asked, problem):
    with pytest.raises(ValueError, match=problem) as error:
        run(**{"steps": 1, **asked})
    assert isinstance(error.value, BadValue)


def test_a_session_that_is_none_is_refused_first(text):
    with pytest.raises(TypeError, match="sess must be"):
        gpt2.finetune("text.txt", text)


def test_a_short_text_gets_shorter_windows(here, have, capsys):
    have("124M")
    (here / "short.txt").write_text("The cat sat on the mat.", encoding="utf-8")
    gpt2.finetune(gpt2.start_tf_sess(), "short.txt", steps=1, sample_length=5)
    tokens = int(re.search(r"dataset has (\d+) tokens", capsys.readouterr().out)[1])
    assert settings(here / "checkpoint" / "run1")["window"] == tokens - 1 < 64
