import re
import shutil
import sys

import pytest

from gpt2kit.cli.main import gpt_2_simple
from gpt2kit.errors import Gpt2kitError
from gpt2kit.legacy.gpt_2_simple_command import main


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `gpt_2_simple WORDS`. Returns its exit status, standard output and standard error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["gpt_2_simple", *words])
        with pytest.raises(SystemExit) as end:
            sys.exit(gpt_2_simple())
        shown = capsys.readouterr()
        return end.value.code, shown.out, shown.err.removesuffix("\n")

    return run


@pytest.fixture
def run1(here, shared):
    """A run of gpt-2-simple 0.8.1."""
    shutil.copytree(shared / "fixtures" / "gpt2simple" / "checkpoint", here / "checkpoint")


@pytest.fixture
def model(have_wide):
    """models/124M."""
    have_wide("124M")


def generated(here, folder="gen"):
    return sorted(path.name for path in (here / folder).iterdir())


# --- finetune ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["finetune", "text.txt", "--steps", "3"],
        ["finetune", "--steps", "3", "text.txt"],
        ["finetune", "--dataset", "text.txt", "--steps", "3"],
        ["--mode", "finetune", "--dataset", "text.txt", "--steps", "3"],
        ["--mode", "finetune", "text.txt", "--steps=3"],
    ],
    ids=" ".join,
)
def test_every_way_to_say_it_trains(here, model, text, command, words):
    status, shown, _ = command(*words, "--print_every", "1")
    assert status == 0
    assert "\n[3 | " in shown
    assert (here / "checkpoint" / "run1" / "counter").read_text("utf-8") == "3\n"


# --- generate ---


def test_files_of_one_second_have_different_names(here, run1, command):
    words = ["--nfiles", "3", "--nsamples", "2", "--length", "4", "--folder", "gen"]
    status, shown, bar = command("generate", *words)
    assert (status, shown) == (0, "Loading checkpoint checkpoint/run1/model-2\n")
    assert "3/3" in bar
    names = generated(here)
    assert len(names) == 3
    assert all(re.fullmatch(r"gpt2_gentext_\d{8}_\d{6}(_\d)?\.txt", name) for name in names)
    assert (here / "gen" / names[0]).read_text("utf-8").count("====================\n") == 2


def test_what_an_earlier_call_wrote_is_replaced(here, run1, command):
    (here / "gen").mkdir()
    (here / "gen" / "gpt2_gentext_20190101_120000.txt").write_text("before", encoding="utf-8")
    command("generate", "--length", "4")
    assert len(generated(here)) == 1
    assert "gpt2_gentext_20190101_120000.txt" not in generated(here)


def test_what_an_earlier_call_wrote_stays_if_nothing_new_can_be_written(here, run1, command):
    command("generate", "--length", "4")
    before = generated(here)
    assert command("generate", "--length", "0")[0] == 1
    assert generated(here) == before


def test_a_folder_with_anything_else_is_left_alone(here, run1, command):
    (here / "mine").mkdir()
    for name in ("thesis.tex", "gpt2_gentext_20190101_120000.txt"):
        (here / "mine" / name).write_text(name, encoding="utf-8")
    status, _, problem = command("generate", "--folder", "mine", "--length", "4")
    assert status == 1
    assert problem.endswith(
        "gpt2: mine: holds more than generated texts, which would be removed: thesis.tex; name another --folder"
    )
    assert generated(here, "mine") == ["gpt2_gentext_20190101_120000.txt", "thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_told(here, run1, command):
    (here / "gen").write_text("mine", encoding="utf-8")
    status, _, problem = command("generate", "--length", "4")
    assert (status, problem) == (1, "gpt2: gen: a file; --folder names the directory that the texts go to")


def test_options_reach_the_texts(here, run1, command):
    words = ["--prefix", "<A>", "--truncate", "B", "--sample_delim", "~", "--nsamples", "2", "--batch_size", "2"]
    command("generate", *words, "--length", "4", "--top_k", "1", "--include_prefix", "True")
    [name] = generated(here)
    first, second, end = (here / "gen" / name).read_text("utf-8").split("\n~")
    assert first == second != "<A>"
    assert first.startswith("<A>")
    assert end == ""


# --- wrong input ---


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "Mode must be 'finetune' or 'generate', got None"),
        (["train"], "Mode must be 'finetune' or 'generate', got 'train'"),
        (["finetune"], "You need to provide a dataset."),
        (
            ["generate"],
            "checkpoint/run1: no such run; finetune makes one, and run_name names another",
        ),
    ],
    ids=repr,
)
def test_trouble_is_one_line_and_status_1(command, words, problem):
    assert command(*words) == (1, "", f"gpt2: {problem}")


@pytest.mark.parametrize(
    "words", [["finetune", "a.txt", "b.txt"], ["generate", "--length", "many"], ["generate", "--lenght", "3"]]
)
def test_a_line_that_cannot_be_read_is_status_2(command, words):
    status, _, problem = command(*words)
    assert status == 2
    assert problem.startswith("usage: gpt_2_simple ")


def test_uneven_batches_are_one_line(run1, command):
    status, _, problem = command("generate", "--nsamples", "3", "--batch_size", "2", "--length", "4")
    assert status == 1
    assert problem.endswith("gpt2: nsamples must be a multiple of batch_size, got 3 and 2")


def test_an_option_without_a_value_is_its_default(here, run1, command):
    assert command("generate", "--length", "4", "--temperature", "--batch_size", "--truncate")[0] == 0


def test_gpt2_legacy_hears_of_trouble_as_an_error(here):
    with pytest.raises(Gpt2kitError, match="no such run"):
        main(["generate"])


def test_a_folder_that_cannot_be_made_is_one_line(run1, command):
    status, _, problem = command("generate", "--folder", "checkpoint/run1/counter/gen", "--length", "4")
    assert (status, "\n" in problem) == (1, False)
    assert problem.startswith("gpt2: ")
    assert "checkpoint/run1/counter/gen" in problem


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(here, run1, command):
    (here / "checkpoint" / "run1" / "checkpoint").write_text('model_checkpoint_path: "model-9"\n', encoding="utf-8")
    _, _, said = command("generate", "--length", "4")
    assert said.startswith("gpt2: warning: checkpoint/run1/checkpoint names 'model-9', which is not there")
