from dataclasses import dataclass

import pytest

from gpt2kit.legacy.fire import flag, parse


@dataclass(frozen=True)
class Asked:
    """Ask."""

    model_name: str = flag("124M", "which")
    seed: int | None = flag(None, "fixed or not")
    top_k: int = flag(0, "how many")
    temperature: float = flag(1, "how wild")


def asked(*words):
    return parse(Asked, "ask", words)


def test_without_words_the_defaults_hold():
    assert asked() == Asked("124M", None, 0, 1)


@pytest.mark.parametrize("words", [["--top_k", "40"], ["--top_k=40"], ["--top-k", "40"], ["--top-k=40"]])
def test_a_flag_may_be_spelt_in_four_ways(words):
    assert asked(*words) == Asked(top_k=40)


def test_values_alone_stand_in_the_order_of_the_flags():
    assert asked("355M", "7", "40", "0.7") == Asked("355M", 7, 40, 0.7)


def test_values_fill_what_is_not_named():
    assert asked("--seed", "7", "355M", "40") == asked("355M", "40", "--seed=7") == Asked("355M", 7, 40)


def test_none_stands_for_the_default():
    assert asked("None", "None", "--top_k", "None") == Asked()


def test_a_name_of_digits_stays_a_name():
    assert asked("124").model_name == "124"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--", "--help"], ["355M", "--", "-h"]])
def test_help_tells_every_flag_with_its_default(words, capsys):
    with pytest.raises(SystemExit) as stop:
        asked(*words)
    assert stop.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "which (default: 124M)" in told
    assert "--top_k TOP_K, --top-k TOP_K how many (default: 0)" in told


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--top_k", "many"], "invalid int value: 'many'"),
        (["355M", "many"], "argument --seed: invalid value: 'many'"),
        (["1", "2", "3", "4", "5"], "more values than flags: 5"),
        (["--topk", "40"], "unrecognized arguments: --topk"),
        (["--top_k"], "expected one argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_a_mistake_of_usage(words, problem, capsys):
    with pytest.raises(SystemExit) as stop:
        asked(*words)
    assert stop.value.code == 2
    assert problem in capsys.readouterr().err
