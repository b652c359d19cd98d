import pytest

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.errors import ConfigError


@pytest.mark.parametrize(
    "encoding", ["utf-8", "UTF8", "utf-8-sig", "gb18030", "GBK", "big5", "latin-1", "utf-16", "cp1252"]
)
def test_every_encoding_that_python_knows_can_be_named(encoding):
    assert ReadingConfig(encoding=encoding).encoding == encoding


@pytest.mark.parametrize("encoding", ["", "utf-88", "gb 18030!", "a\0b", "hex", "rot13", "zip"])
def test_what_is_no_encoding_of_text_is_refused_with_some_that_are(encoding):
    with pytest.raises(
        ConfigError, match=r"^encoding '.*' is not known; known are utf-8, gb18030, big5, latin-1, utf-16"
    ):
        ReadingConfig(encoding=encoding)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"combine": -1}, "combine must be 0 or more, got -1"),
        ({"invalid_utf8": "drop"}, "invalid_utf8 must be one of 'refuse', 'replace', 'ignore', got 'drop'"),
        ({"field": ""}, "field must not be empty"),
    ],
)
def test_an_impossible_option_is_refused(option, problem):
    with pytest.raises(ConfigError, match=problem):
        ReadingConfig(**option)
