import shutil

import pytest

from gpt2kit.errors import FormatError
from gpt2kit.formats.registry import detect


def test_every_golden_model_is_recognised(example):
    assert detect(example.directory).name == "huggingface"


def test_a_single_file_is_recognised(golden):
    assert detect(golden / "hf-safetensors" / "model.safetensors").name == "huggingface"


def test_the_recognised_format_reads(golden):
    directory = golden / "hf-v5"
    assert detect(directory).read(directory).config.width == 40


def test_an_unknown_directory_is_refused_with_what_it_holds(tmp_path):
    for name in ("notes.txt", "config.json"):
        (tmp_path / name).touch()
    with pytest.raises(
        FormatError, match=r"no checkpoint in a known format, holding config\.json, notes\.txt; known: "
    ):
        detect(tmp_path)


def test_an_empty_directory_is_refused_as_such(tmp_path):
    with pytest.raises(FormatError, match="no checkpoint in a known format, holding nothing; known: "):
        detect(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "nowhere"])
def test_another_file_is_refused_with_what_is_known(tmp_path, name):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FormatError, match=r"no checkpoint in a known format; known: .*huggingface \(Hugging Face"):
        detect(tmp_path / name)


def test_a_pickle_outside_the_directory_is_never_opened(shared, tmp_path, monkeypatch):
    # Its index leads to a neighbour's pickle, which would leave a mark where the program stands.
    monkeypatch.chdir(tmp_path)
    for case in ("shard_bin_traversal", "pickle_malicious_zip"):
        shutil.copytree(shared / "fixtures" / "bad" / case, tmp_path / case)
    with pytest.raises(FormatError):
        detect(tmp_path / "shard_bin_traversal").read(tmp_path / "shard_bin_traversal")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pickle_malicious_zip", "shard_bin_traversal"]
