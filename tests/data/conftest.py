from pathlib import Path

import pytest

from gpt2kit.tokenizer.open import open_tokenizer


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory of our own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(here):
    """Write bytes, or text as UTF-8, to a file and make its directories."""

    def to(place, content):
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to


@pytest.fixture(scope="session")
def tiny(golden):
    """A tokenizer of 320 tokens whose end token is 319."""
    directory = golden / "hf-safetensors"
    files = {name: (directory / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    return open_tokenizer(files, "tiny")


@pytest.fixture(scope="session")
def openai(shared):
    """OpenAI's own vocabulary of 50257 tokens."""
    files = {name: (shared / "data" / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    return open_tokenizer(files, "openai")
