import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.toml_file import from_table, read_toml, to_toml
from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Job:
    """Settings as commands have them: a path without default, a nested table, a perhaps."""

    text: Path
    model: str = "124M"
    run: str | None = None
    training: TrainingConfig = TrainingConfig()


def sampling(table):
    return from_table(SamplingConfig, table, "run.toml: [sampling]", absent=None)


# --- reading ---


def test_a_table_written_by_hand_is_read():
    table = tomllib.loads("""
        chain = "openai"
        temperature = 0.7
        top_k = 40
        banned_ids = [50256, 198]
        logit_bias = { 11 = -1.5, 13 = 2 }
    """)
    assert sampling(table) == SamplingConfig(
        chain="openai", temperature=0.7, top_k=40, banned_ids=(50256, 198), logit_bias={11: -1.5, 13: 2.0}
    )


def test_an_empty_table_gives_the_defaults():
    assert sampling({}) == SamplingConfig()


def test_names_may_be_written_with_dashes():
    assert sampling({"top-k": 40}).top_k == 40


def test_a_whole_number_serves_as_a_float():
    assert repr(sampling({"temperature": 1}).temperature) == "1.0"


def test_text_becomes_a_path():
    assert from_table(Job, {"text": "corpus.txt"}, "run.toml", absent=None).text == Path("corpus.txt")


def test_a_nested_table_becomes_a_nested_setting():
    job = from_table(Job, {"text": "corpus.txt", "training": {"steps": 5}}, "run.toml", absent=None)
    assert job.training == TrainingConfig(steps=5)


def test_what_has_neither_default_nor_value_is_marked_absent():
    missing = object()
    assert from_table(Job, {"model": "355M"}, "run.toml", absent=missing).text is missing


# --- refusing ---


@pytest.mark.parametrize(
    ("wrong", "near"), [("temprature", "temperature"), ("topk", "top_k"), ("no-repeat-ngrams", "no_repeat_ngram")]
)
def test_an_unknown_key_names_the_closest_one(wrong, near):
    with pytest.raises(
        ConfigError, match=rf"^run\.toml: \[sampling\] has no setting '{wrong}'; did you mean '{near}'\?$"
    ):
        sampling({wrong: 1})


def test_a_key_like_no_other_names_none():
    with pytest.raises(ConfigError, match=r"has no setting 'colour'$"):
        sampling({"colour": "red"})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("top_k", "40", "a whole number"),
        ("top_k", 40.0, "a whole number"),
        ("top_k", True, "a whole number"),
        ("temperature", "hot", "a number"),
        ("temperature", False, "a number"),
        ("chain", "mine", "one of 'standard', 'openai', 'nshepperd', 'gpt2-ml'"),
        ("banned_ids", 50256, "a list"),
        ("banned_ids", [50256, "198"], "a whole number"),
        ("seed", "random", "a whole number"),
        ("logit_bias", [1, 2], ""),
    ],
)
def test_a_wrong_type_is_refused_with_the_right_one(key, value, expected):
    with pytest.raises(ConfigError, match=rf"^run\.toml: \[sampling\], {key}: found .*, expected .*{expected}"):
        sampling({key: value})


@pytest.mark.parametrize("bias", [{"comma": 1.0}, {"11": "much"}, {"11": [1.0]}])
def test_a_bias_that_is_no_number_is_refused(bias):
    with pytest.raises(ConfigError, match="logit_bias"):
        sampling({"logit_bias": bias})


def test_an_impossible_value_is_refused_by_the_setting_itself():
    with pytest.raises(ConfigError, match=r"^temperature must be 0 or more, got -1"):
        sampling({"temperature": -1})


def test_a_mistake_in_a_nested_table_is_placed():
    with pytest.raises(ConfigError, match=r"^run\.toml, training has no setting 'stepz'; did you mean 'steps'\?$"):
        from_table(Job, {"training": {"stepz": 5}}, "run.toml", absent=None)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"steps = ", b"steps 5", b"\xff\xfe"])
def test_what_is_not_toml_is_refused(tmp_path, content):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml: not TOML: "):
        read_toml(tmp_path / "run.toml")


# --- writing ---


def test_nested_settings_become_tables_and_none_is_left_out():
    written = tomllib.loads(to_toml(Job(text=Path("corpus.txt"), training=TrainingConfig(steps=5))).decode())
    assert written["training"]["steps"] == 5
    assert {key: value for key, value in written.items() if key != "training"} == {
        "text": "corpus.txt",
        "model": "124M",
    }


@pytest.mark.parametrize(
    "settings",
    [
        SamplingConfig(),
        SamplingConfig(seed=2**64 - 1, banned_ids=(1, 2), logit_bias={11: -1.5}, chain="gpt2-ml", top_p=0.0),
        StopConfig(stop=("\n\n", '"', "\0", "。"), stop_ids=(50256,), overflow="error", ignore_end=True),
        TrainingConfig(learning_rate=3e-5, schedule="constant", clip_norm=0.0),
        Job(text=Path("a b/c.txt"), run="run1", training=TrainingConfig(steps=7)),
    ],
    ids=["defaults", "sampling", "stop", "training", "nested"],
)
def test_what_is_written_is_read_back(tmp_path, settings):
    (tmp_path / "run.toml").write_bytes(to_toml(settings))
    assert from_table(type(settings), read_toml(tmp_path / "run.toml"), "run.toml", absent=None) == settings
