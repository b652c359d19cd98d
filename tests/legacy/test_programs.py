import pytest

from gpt2kit.legacy.programs import PROGRAMS, named, near

# As the repositories of OpenAI and nshepperd, and the packages of Max Woolf and Hugging Face, named them.
NAMES = (
    *("train.py", "encode.py", "download_model.py", "generate_unconditional_samples.py"),
    *("interactive_conditional_samples.py", "gpt_2_simple", "pytorch_pretrained_bert"),
)


@pytest.mark.parametrize("name", NAMES)
def test_an_old_line_keeps_its_program(name):
    assert named(name) is named(f"./{name}") is named(f"src/{name}") is named(name.removesuffix(".py")) is not None


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_tells_its_usage(name, capsys):
    try:
        status = PROGRAMS[name](["--help"])
    except SystemExit as stop:  # argparse's way
        status = stop.code
    assert not status
    usage = capsys.readouterr().out
    names = [other for other in PROGRAMS if PROGRAMS[other].function == PROGRAMS[name].function]  # it had two
    assert any(each.removesuffix(".py") in usage for each in names)


@pytest.mark.parametrize("name", ["", "train.sh", "/", "trai", "gpt2"])
def test_what_was_no_program_is_none(name):
    assert named(name) is None


def test_a_slip_is_near_to_the_name_meant():
    assert (near("trian.py"), near("./encod.py"), near("zzz")) == ("train.py", "encode.py", None)
