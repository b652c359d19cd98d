"""The lines, defaults and stop rule of imcaspar's demo.py."""

import io
import json
import re
import shutil
import sys

import pytest

from gpt2kit.errors import ConfigError, ModelNotFound, WeightMismatch
from gpt2kit.formats import gpt2_ml
from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.legacy.gpt2_ml import COLUMNS, demo

WINDOW = 48
LOADED, NEXT = "🍺Model loaded. \nInput something please:⬇️\n", "Next try:⬇️\n"


@pytest.fixture
def mega(here, shared):
    """The prefix of the model in models/mega/, as it was called there."""
    shutil.copytree(shared / "fixtures" / "gpt2ml", here / "models" / "mega", copy_function=shutil.copyfile)
    return "models/mega/model.ckpt-100000"


@pytest.fixture
def talk(capsys, monkeypatch, mega):
    """Standard output of demo.py with this typed."""

    def run(*words, typed):
        with io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            assert demo(["-ckpt_fn", mega, *words]) == 0
        return capsys.readouterr().out

    return run


def test_a_conversation_has_its_lines(talk):
    out = talk("-samples", "2", typed="今天\n床前\n\nnever read\n")
    sample = r"Sample, {}  of  2\n{}.*\n(?:(?!Sample|Next).+\n)*"
    samples = [sample.format(number, text) for text in ("今天", "床前") for number in (1, 2)]
    assert re.fullmatch(LOADED + samples[0] + samples[1] + NEXT + samples[2] + samples[3] + NEXT, out)


def test_five_samples_are_written_by_default(talk):
    out = talk(typed="今天\n\n")
    assert [line for line in out.splitlines() if line.startswith("Sample")][-1] == "Sample, 5  of  5"


@pytest.mark.parametrize("typed", ["", "\n"])
def test_an_empty_line_and_the_end_of_the_input_end_it(talk, typed):
    assert talk(typed=typed) == LOADED


def test_lines_are_broken_after_70_characters(talk, mega):
    longest = max(len(line) for line in talk("-samples", "1", typed="今天\n\n").splitlines())
    assert COLUMNS / 2 < longest <= COLUMNS


# --- its stop rule ---

GREEDY = ("-top_p", "0.000001", "-samples", "1")  # only the likeliest is ever left


@pytest.fixture
def by_the_rule(shared):
    """The text that sample() of its modeling.py writes where only the likeliest token is ever left."""
    directory = shared / "fixtures" / "gpt2ml"
    engine, words = (
        ReferenceEngine(gpt2_ml.read(directory), 1),
        (directory / "vocab.txt").read_text("utf-8").split("\n"),
    )

    def write(prompt, min_len=1024, eos_token=102):
        ids = [words.index(word) for word in prompt]
        while len(ids) <= WINDOW:
            engine.truncate(0, 0)
            logits_V = engine.step([Row(0, ids)])[0]
            logits_V[0] -= 1e10
            ids.append(int(logits_V.argmax()))
            if ids[-1] == eos_token and len(ids) > min_len:
                break
        return ids, "".join(words[id] for id in ids).replace("[UNK]", "").replace("##", "")

    return write


def said(out):
    return out.removeprefix(LOADED + "Sample, 1  of  1\n").removesuffix(NEXT).replace("\n", "")


def test_a_text_fills_the_window_and_one_token_more(talk, by_the_rule):
    ids, text = by_the_rule("今天")
    assert len(ids) == WINDOW + 1
    assert said(talk(*GREEDY, typed="今天\n\n")) == text


@pytest.mark.parametrize("place", [2, 7, 20])
def test_a_text_ends_with_its_end_token_behind_min_len_and_not_before(talk, by_the_rule, place):
    whole, _ = by_the_rule("今天")
    for min_len in (0, place, place + 1, WINDOW):
        ids, text = by_the_rule("今天", min_len, whole[place])
        assert len(ids) > min_len or len(ids) == WINDOW + 1
        asked = ("-min_len", str(min_len), "-eos_token", str(whole[place]))
        assert said(talk(*GREEDY, *asked, typed="今天\n\n")) == text


# --- its flags ---


def test_flags_without_effect_are_taken(talk):
    flags = ("-batch_size", "3", "-max_batch_size", "2", "-metadata_fn", "m", "-out_fn", "o", "-input", "i")
    assert talk(*flags, "-target", "t", "-num_folds", "1", "-fold", "0", typed="") == LOADED


def test_settings_are_those_of_config_fn(talk, here):
    here.joinpath("models", "mega", "config.json").rename(here / "elsewhere.json")
    assert talk("-config_fn", "elsewhere.json", typed="") == LOADED


def test_settings_are_those_of_configs_mega_json_where_it_is(talk, here):
    (here / "configs").mkdir()
    here.joinpath("models", "mega", "config.json").rename(here / "configs" / "mega.json")
    assert talk(typed="") == LOADED


def test_settings_of_another_model_are_refused(talk, here):
    config = json.loads((here / "models" / "mega" / "config.json").read_text("utf-8"))
    (here / "other.json").write_text(json.dumps(config | {"num_hidden_layers": 4}), "utf-8")
    with pytest.raises(WeightMismatch, match=r"tensor h\.3\.ln_1\.weight is missing"):
        talk("-config_fn", "other.json", typed="")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("-samples", "0"), "samples must be 1 or more, got 0"),
        (("-batch_size", "0"), "batch_size must be 1 or more, got 0"),
        (("-top_p", "2"), r"top_p must be in \[0, 1\], got 2.0"),
        (("-eos_token", "8021"), "eos_token must be an id of the model, 0 to 8020, got 8021"),
    ],
)
def test_impossible_values_are_refused(talk, words, problem):
    with pytest.raises(ConfigError, match=problem):
        talk(*words, typed="")


def test_a_missing_model_is_named(here):
    with pytest.raises(ModelNotFound, match=r"no model '\.\./models/mega/model\.ckpt': no such path"):
        demo([])
