import numpy as np
import pytest

from gpt2kit.data.documents import Document
from gpt2kit.data.encode import encode_documents
from gpt2kit.errors import DataError


class Letters:
    """A tokenizer whose ids are code points."""

    end_id = 0

    def __init__(self, vocab_size=128):
        self.vocab_size = vocab_size

    def encode(self, text, *, special=False):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def bytes_of(self, token_id):
        return chr(token_id).encode()


def documents(*texts):
    return [Document(text, f"{number}.txt") for number, text in enumerate(texts)]


def test_the_end_token_stands_behind_every_document():
    assert encode_documents(documents("ab", "c"), Letters()).tolist() == [97, 98, 0, 99, 0]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65536, np.uint16), (65537, np.uint32)])
def test_ids_are_as_narrow_as_the_vocabulary_allows(vocab_size, dtype):
    assert encode_documents(documents("a"), Letters(vocab_size)).dtype == dtype


def test_ids_above_65535_survive():
    assert encode_documents(documents("🙂"), Letters(0x110000)).tolist() == [0x1F642, 0]


def test_nothing_to_encode_is_refused():
    with pytest.raises(DataError, match="no document"):
        encode_documents([], Letters())


def test_progress_counts_the_characters_so_far():
    reports = []
    encode_documents(documents("ab", "cde"), Letters(), reports.append)
    assert [report.done for report in reports] == [2, 5]
