import inspect
import re
from pathlib import Path

import pytest

from gpt2kit import errors
from gpt2kit.errors import FormatError, Gpt2kitError, MissingExtra, TruncatedFile


def test_a_format_error_names_file_problem_and_place():
    assert str(FormatError(Path("model.gguf"), 12, "ends early")) == "model.gguf: ends early (at byte 12)"


def test_a_format_error_without_a_place_claims_none():
    assert str(FormatError("config.json", None, "not JSON")) == "config.json: not JSON"


def test_a_truncated_file_is_a_format_error():
    with pytest.raises(FormatError, match=r"^a\.bin: too short \(at byte 3\)$"):
        raise TruncatedFile("a.bin", 3, "too short")


def test_a_missing_extra_names_its_remedy():
    assert "pip install 'gpt2kit[h5]'" in str(MissingExtra("reading tf_model.h5", "h5"))


def test_the_tree_is_drawn_as_it_is():
    drawn, parents = {}, ["Gpt2kitError"]
    for branch, name in re.findall(r"^([│ ]*[├└]── )(\w+)", errors.__doc__, re.MULTILINE):
        depth = len(branch) // 4
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1]
    classes = inspect.getmembers(errors, lambda thing: inspect.isclass(thing) and issubclass(thing, Gpt2kitError))
    assert drawn == {name: kind.__base__.__name__ for name, kind in classes if kind is not Gpt2kitError}
