"""GPT2-ML's settings, vocabulary and names, damaged; its bundle is TensorFlow's, which test_openai.py damages."""

import shutil
import warnings

import pytest

from gpt2kit.formats import gpt2_ml
from gpt2kit.formats.sorted_table import read_table, table_bytes
from gpt2kit.tokenizer.open import open_tokenizer

pytestmark = pytest.mark.slow
INDEX = "model.ckpt-100000.index"


@pytest.fixture
def directory(shared, tmp_path):
    """A good model that may be damaged."""
    return shutil.copytree(shared / "fixtures" / "gpt2ml", tmp_path / "model", copy_function=shutil.copyfile)


@pytest.fixture
def attack(directory, survives):
    """attack(file, original, forge): damage `original`; what `forge` makes of it is a file of a model to read."""

    def attacked(file, original, forge=bytes):
        def open_and_read(content):
            (directory / file).write_bytes(forge(content))
            with warnings.catch_warnings(action="ignore"):
                checkpoint = gpt2_ml.read(directory)
                for tensor in checkpoint.tensors.values():
                    tensor.read()
                if checkpoint.tokenizer_files:
                    tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
                    tokenizer.decode(tokenizer.encode("今天 Hello"))

        open_and_read(original)  # undamaged it is good
        survives(original, open_and_read)

    return attacked


def test_settings(directory, attack):
    attack("config.json", (directory / "config.json").read_bytes())


def test_a_vocabulary(directory, attack):
    attack("vocab.txt", (directory / "vocab.txt").read_bytes())


def test_names_and_places_behind_their_checksums(directory, attack):
    pairs = list(read_table(directory / INDEX))
    lengths = [(len(key), len(value)) for key, value in pairs]

    def forged(content):
        """The same table of other keys and values, in their order."""
        found, start = [], 0
        for key, value in lengths:
            middle, end = start + key, start + key + value
            found.append((content[start:middle], content[middle:end]))
            start = end
        return table_bytes(sorted(dict(found).items()))

    attack(INDEX, b"".join(key + value for key, value in pairs), forged)
