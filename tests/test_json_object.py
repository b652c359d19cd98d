import pytest

from gpt2kit.errors import FormatError
from gpt2kit.formats import huggingface
from gpt2kit.json_object import MOST_BYTES, parse_object, read_object


def test_an_object_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"size": 1, "text": "你好"}', "utf-8")
    assert read_object(tmp_path / "a.json") == {"size": 1, "text": "你好"}


def test_the_mark_of_windows_editor_is_no_part_of_it():
    assert parse_object(b'\xef\xbb\xbf{"a": 1}', "here") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON: "),
        (b"{", "not JSON: "),
        (b"\xff{}", "not JSON: "),
        (b"[" * 100_000, "not JSON: "),
        (b"[1]", "a JSON list; expected an object"),
        (b"null", "a JSON NoneType; expected an object"),
    ],
)
def test_anything_else_is_refused(content, problem):
    with pytest.raises(FormatError, match=f"^here: {problem}"):
        parse_object(content, "here")


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "tokenizer.json"])
def test_a_huge_file_is_not_read_to_its_end(golden, tmp_path, name):
    (tmp_path / "model.safetensors").write_bytes((golden / "hf-safetensors" / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_bytes((golden / "hf-safetensors" / "config.json").read_bytes())
    with (tmp_path / name).open("wb") as file:
        file.truncate(2 * MOST_BYTES)
    with pytest.raises(FormatError, match=rf"{name}: more than 16,000,000 bytes, far too large for what it"):
        huggingface.read(tmp_path)
