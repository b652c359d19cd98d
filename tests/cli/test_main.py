import dataclasses
import inspect
import io
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from gpt2kit import __version__
from gpt2kit.cli.finetune import Finetune
from gpt2kit.cli.generate import Generate
from gpt2kit.cli.main import COMMANDS, parse
from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import ConfigError

EVERY_COMMAND = pytest.mark.parametrize("name", COMMANDS)


def kind_of(name):
    return getattr(import_module(COMMANDS[name].module), COMMANDS[name].kind)


def settings_of(kind):
    """Every option of a command with a default that can be shown, those of its groups included."""
    for field in dataclasses.fields(kind):
        default = field.default
        if dataclasses.is_dataclass(default):
            yield from settings_of(type(default))
        elif default is not dataclasses.MISSING and "Positional" not in str(field.type) and default != ():
            yield field.name, default


# --- help ---


@EVERY_COMMAND
def test_help_shows_every_option_with_its_default(gpt2, name):
    status, out, _ = gpt2(*name.split(), "--help")
    assert status == 0
    flowing = " ".join(re.sub("[│╭╮╰╯─]", " ", out).split()).partition("show this help message and exit")[2]
    for setting, default in settings_of(kind_of(name)):
        option = re.search(rf"--{setting.replace('_', '-')}[ ,]", flowing)
        assert option, f"{name} has no option {setting}"
        shown = re.search(r"\(default: (.*?)\)", flowing[option.end() :])
        as_a_shell_takes_it = shlex.quote(default) if isinstance(default, str) else str(default)
        if shown.group(1) in ("true", "false"):  # a boolean that is written out
            as_a_shell_takes_it = as_a_shell_takes_it.lower()
        assert shown.group(1) == as_a_shell_takes_it, f"{setting} of {name}"


@EVERY_COMMAND
def test_the_summary_is_the_first_line_of_the_help(name):
    assert inspect.getdoc(kind_of(name)).splitlines()[0] == COMMANDS[name].summary


@EVERY_COMMAND
def test_the_overview_names_every_command(gpt2, name):
    status, out, _ = gpt2("--help")
    assert status == 0
    assert re.search(rf"^  {name} +{re.escape(COMMANDS[name].summary)}$", out, re.MULTILINE)


def test_without_a_command_the_overview_is_shown_as_a_mistake(gpt2):
    status, out, _ = gpt2()
    assert (status, "usage: gpt2 COMMAND" in out) == (2, True)


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_names_engine_and_torch(gpt2, option):
    from importlib.metadata import version

    status, out, _ = gpt2(option)
    assert status == 0
    assert out.startswith(f"gpt2kit {__version__}, engine native, torch {version('torch')}, ")


# --- mistakes ---


@pytest.mark.parametrize(
    ("words", "meant"),
    [("genrate", "generate"), ("finetun", "finetune"), ("tokenizer", "tokenizer train"), ("Inspect", "inspect")],
)
def test_an_unknown_command_is_answered_with_the_nearest(gpt2, words, meant):
    status, out, err = gpt2(words, "--model", "x")
    assert (status, out) == (2, "")
    assert err == f"gpt2: no command '{words}'; did you mean: gpt2 {meant}?\n"


def test_a_command_like_no_other_is_answered_with_the_list(gpt2):
    status, _, err = gpt2("frobnicate")
    assert (status, err) == (2, "gpt2: no command 'frobnicate'; `gpt2 --help` lists them\n")


def test_an_unknown_option_is_a_usage_error(gpt2):
    status, _, err = gpt2("generate", "--temprature", "1")
    assert status == 2
    assert "--temprature" in err
    assert "--temperature" in err


@pytest.mark.parametrize(
    "words",
    [
        "generate hi --model nowhere",
        "inspect nowhere",
        "evaluate nowhere text.txt",
        "finetune text.txt --model nowhere",
    ],
)
def test_a_wrong_model_is_one_line_and_status_1(gpt2, here, words):
    (here / "text.txt").write_text("x", encoding="utf-8")
    status, out, err = gpt2(*words.split())
    assert (status, out) == (1, "")
    assert re.fullmatch(r"gpt2: no model 'nowhere'.*\n", err)


def test_an_impossible_setting_is_one_line_and_status_1(gpt2):
    status, _, err = gpt2("generate", "--temperature", "-1")
    assert (status, err) == (1, "gpt2: temperature must be 0 or more, got -1.0\n")


class Stdin(io.StringIO):
    """A standard input that fails."""

    def __init__(self, error):
        super().__init__()
        self.error, self.buffer = error, self

    def read(self, size=-1):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "\ngpt2: interrupted\n"),
        (MemoryError(), 1, "gpt2: out of memory; "),
        (PermissionError(13, "Permission denied", "prompt.txt"), 1, "gpt2: prompt.txt: Permission denied\n"),
    ],
    ids=["interrupted", "memory", "system"],
)
def test_what_the_system_does_to_us_is_said_in_a_line(gpt2, monkeypatch, error, status, said):
    monkeypatch.setattr(sys, "stdin", Stdin(error))
    found, out, err = gpt2("generate", "-", "--model", "x")
    assert (found, out) == (status, "")
    assert err.startswith(said)
    assert "Traceback" not in err


def test_a_mistake_of_ours_keeps_its_traceback(gpt2, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(AssertionError("ours")))
    with pytest.raises(AssertionError, match="ours"):
        gpt2("generate", "-", "--model", "x")


# --- options and files of options ---


def parsed(kind, *words):
    return parse(kind, "gpt2 test", list(words))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--top_k", "3"], ["--top-k", "3"]),
        (["--top_p=0.5"], ["--top-p=0.5"]),
        (["--max_new_tokens", "7"], ["--max-new-tokens", "7"]),
        (["--batch_size", "2"], ["--batch-size", "2"]),
    ],
    ids=lambda words: words[0],
)
def test_underscores_and_dashes_are_the_same(old, new):
    assert parsed(Generate, *old) == parsed(Generate, *new) != Generate()


@pytest.mark.parametrize("kind", [Generate, Finetune])
@pytest.mark.parametrize("old", ["--model_name", "--model-name"])
def test_the_old_name_of_the_model_option_still_works(kind, old):
    files = ["a.txt"] if kind is Finetune else []
    assert parsed(kind, *files, old, "x").model == "x"


def test_without_options_the_defaults_hold():
    assert parsed(Generate) == Generate()


@pytest.fixture
def options(here):
    """A file of options."""

    def write(text):
        (here / "options.toml").write_text(text, encoding="utf-8")
        return "--config", "options.toml"

    return write


FILE = """
prompt = "Once"
nsamples = 3
[sampling]
temperature = 0.5
top-k = 7
logit_bias = { 5 = -1.0 }
[stop]
stop = ["END", "\\n"]
"""


def test_a_file_of_options_sets_them(options):
    generate = parsed(Generate, *options(FILE))
    assert (generate.prompt, generate.nsamples) == ("Once", 3)
    assert (generate.sampling.temperature, generate.sampling.top_k) == (0.5, 7)
    assert generate.sampling.logit_bias == {5: -1.0}
    assert generate.stop.stop == ("END", "\n")


def test_what_the_file_leaves_out_keeps_its_default(options):
    generate = parsed(Generate, *options(FILE))
    assert (generate.model, generate.sampling.top_p, generate.stop.max_new_tokens) == ("124M", 1.0, 100)


@pytest.mark.parametrize("before", [True, False], ids=["before the file", "after the file"])
def test_the_command_line_wins_over_the_file(options, before):
    config, words = options(FILE), ["Twice", "--temperature", "0.9"]
    generate = parsed(Generate, *words, *config) if before else parsed(Generate, *config, *words)
    assert (generate.prompt, generate.sampling.temperature) == ("Twice", 0.9)
    assert (generate.nsamples, generate.sampling.top_k) == (3, 7)


def test_a_prompt_that_is_called_as_a_setting_changes_none(options):
    generate = parsed(Generate, "nsamples", *options(FILE))
    assert (generate.prompt, generate.nsamples) == ("nsamples", 3)


def test_a_list_on_the_command_line_replaces_the_one_in_the_file(options):
    config = options(FILE)
    assert parsed(Generate, *config, "--stop", "FIN", "--stop", "ENDE").stop.stop == ("FIN", "ENDE")
    assert parsed(Generate, *config, "--logit-bias", "6", "1").sampling.logit_bias == {6: 1.0}


def test_texts_on_the_command_line_replace_those_in_the_file(options):
    config = options('dataset = ["a.txt", "b.txt"]')
    assert parsed(Finetune, "c.txt", *config).dataset == ("c.txt",)


def test_a_file_may_be_named_with_an_equals_sign(options):
    options(FILE)
    assert parsed(Generate, "--config=options.toml").nsamples == 3


def test_a_required_option_may_stand_in_the_file(options):
    finetune = parsed(Finetune, *options('dataset = ["a.txt", "b.txt"]\n[training]\nsteps = 5\n'))
    assert (finetune.dataset, finetune.training.steps) == (("a.txt", "b.txt"), 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle = 'x'", r"options\.toml has no setting 'modle'; did you mean 'model'\?"),
        ("[sampling]\ntemprature = 1", r"no setting 'temprature'; did you mean 'temperature'\?"),
        ("seed = 3", r"options\.toml has no setting 'seed'; it stands in the table \[sampling\]"),
        ("nsamples = 'three'", r"options\.toml, nsamples: found 'three', expected a whole number"),
        ("[sampling]\nchain = 'mine'", r"chain: found 'mine', expected one of 'standard'"),
        ("[sampling]\ntemperature = -1", r"temperature must be 0 or more"),
        ("[sampling]\nlogit_bias = { dog = 1.0 }", r"logit_bias: found .*'dog'"),
        ("nsamples = ", r"options\.toml: not TOML"),
    ],
    ids=[
        *("unknown key", "unknown key in a table", "key of a table", "wrong type", "wrong choice", "impossible value"),
        *("no id", "no TOML"),
    ],
)
def test_a_wrong_file_of_options_is_refused(gpt2, options, text, said):
    status, _, err = gpt2("generate", *options(text))
    assert status == 1
    assert re.search(said, err)
    assert err.count("\n") == 1


def test_a_missing_file_of_options_is_refused():
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        parsed(Generate, "--config", "nowhere.toml")


# --- presets, files and options: the later wins ---


def learning(*words):
    return parsed(Finetune, "a.txt", *words).training


def test_a_preset_changes_what_it_names_and_nothing_else():
    changed = {"step_in_backward": True, "clip_norm": 0.0, "recompute": True, "loss_chunk": 256, "accumulate": 1}
    assert learning("--preset", "lean") == dataclasses.replace(TrainingConfig(), **changed)


@pytest.mark.parametrize("how", [("--preset", "lean"), ("--preset=lean",)], ids=["two words", "one word"])
def test_a_preset_may_be_named_with_an_equals_sign(how):
    assert learning(*how).recompute


def test_a_file_may_name_a_preset_and_the_command_line_another(options):
    config = options('preset = "lean"')
    assert learning(*config).recompute
    assert not learning(*config, "--preset", "from-scratch").recompute


def test_a_file_wins_over_the_preset_and_the_command_line_over_both(options):
    words = ("--preset", "from-scratch", *options("[training]\nbatch-size = 3\nwindow = 32"))
    assert (learning(*words).batch_size, learning(*words).window, learning(*words).optimizer) == (3, 32, "muon")
    assert learning(*words, "--batch_size", "5").batch_size == 5


@pytest.mark.parametrize(("given", "dropped"), [("epochs", "steps"), ("steps", "epochs")])
def test_steps_on_the_command_line_drop_the_epochs_of_a_file_and_the_other_way_round(options, given, dropped):
    training = learning(*options(f"[training]\n{dropped} = 7"), f"--{given}", "2")
    assert (getattr(training, given), getattr(training, dropped)) == (2, None)


def test_epochs_on_the_command_line_drop_the_steps_of_a_preset():
    training = learning("--preset", "from-scratch", "--epochs", "2")
    assert (training.epochs, training.steps) == (2, None)


def test_epochs_in_a_file_drop_the_steps_of_a_preset(options):
    training = learning("--preset", "from-scratch", *options("[training]\nepochs = 2"))
    assert (training.epochs, training.steps, training.optimizer) == (2, None, "muon")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("preset = 'leen'", "no preset 'leen'; there are from-scratch, lean"),
        ("preset = ['lean']", r"no preset \['lean'\]"),
        ("preset = 'lean'\ntraining = 3", "training: found 3, expected TrainingConfig"),
        ("preset = 'lean'\n[training]\nclip_norm = 1.0", "step_in_backward cannot clip"),
        ("[training]\nsteps = 1\nepochs = 1.0", "steps and epochs say the same thing"),
    ],
    ids=["unknown", "a list", "no table", "against the preset", "rivals"],
)
def test_a_file_and_a_preset_that_do_not_fit_are_refused(options, text, said):
    with pytest.raises(ConfigError, match=said):
        learning(*options(text))


# --- as a program ---


def test_python_m_gpt2kit_is_gpt2(start):
    process = start("--version")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.decode().split(",")[0]) == (0, f"gpt2kit {__version__}")


def test_the_installed_command_is_the_same_program(here):
    command = Path(sys.executable).parent / "gpt2"
    done = subprocess.run([command, "genrate"], capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (2, "gpt2: no command 'genrate'; did you mean: gpt2 generate?\n")


@pytest.mark.slow
def test_a_wrong_model_shows_no_traceback(start):
    process = start("inspect", "nowhere")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert err.startswith(b"gpt2: no model 'nowhere'")
    assert err.count(b"\n") == 1
