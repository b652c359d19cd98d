import shutil

import pytest

from gpt2kit.legacy.programs import PROGRAMS


@pytest.fixture
def legacy(gpt2):
    """Run the call line of an old program."""
    return lambda *words: gpt2("legacy", *words)


@pytest.mark.parametrize(("words", "status"), [([], 2), (["--help"], 0), (["-h"], 0)], ids=["", "--help", "-h"])
def test_every_program_has_its_line(legacy, words, status):
    found, out, err = legacy(*words)
    assert (found, err) == (status, "")
    lines = out.splitlines()
    for name, program in PROGRAMS.items():
        assert any(line.split(maxsplit=1) == [name, program.summary] for line in lines if line.startswith("  "))


@pytest.mark.parametrize("name", ["./train.py", "train", "src/train.py"])
def test_help_is_that_of_the_program(legacy, name):
    status, out, _ = legacy(name, "--help")
    assert (status, out.startswith("usage: gpt2 legacy train.py ")) == (0, True)
    assert "Fine-tune GPT-2 on your custom dataset." in out


def test_a_slip_is_answered_with_the_name_meant(legacy):
    assert legacy("trian.py") == (2, "", "gpt2: no old program 'trian.py'; did you mean: train.py?\n")


def test_another_program_is_none(legacy):
    assert legacy("zzz", "-x") == (2, "", "gpt2: no old program 'zzz'; `gpt2 legacy` lists them\n")


def test_the_words_of_an_old_line_are_left_as_they_are(legacy, here, golden):
    """--config and --preset are the library's own elsewhere."""
    shutil.copytree(golden / "openai-tiny", here / "models" / "124M")
    status, out, err = legacy("generate_unconditional_samples.py", "--nsamples", "1", "--length", "3", "--seed", "1")
    assert (status, err) == (0, "")
    assert out.startswith("=" * 40 + " SAMPLE 1 " + "=" * 40 + "\n")
    status, _, err = legacy("generate_unconditional_samples.py", "--config", "nothing.toml")
    assert (status, "unrecognized arguments: --config" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["train.py", "--dataset", "x", "--model_name", "345M"], "models/345M: no such model; get it with: "),
        (["encode.py", "x", "y"], "models/117M: no such model; get it with: gpt2 legacy download_model.py 117M"),
        (["interactive_conditional_samples.py"], "models/124M: no such model; get it with: "),
        (["convert_gpt2_checkpoint", "x", "y"], "no model 'x': no such path"),
        (["download_model.py", "346M"], "no model is called '346M': did you mean '345M'?"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_error_is_one_line_and_status_1(legacy, words, problem):
    status, _, err = legacy(*words)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"gpt2: {problem}")


def test_wrong_flags_are_a_mistake_of_usage(legacy):
    status, out, err = legacy("train.py", "--foo")
    assert (status, out) == (2, "")
    assert "error: the following arguments are required: --dataset" in err
