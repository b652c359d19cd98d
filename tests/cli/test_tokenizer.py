import json

import pytest


@pytest.fixture(autouse=True)
def text(here):
    """What the vocabularies are learnt from."""
    (here / "text.txt").write_text("the cat sat on the mat\n" * 20, encoding="utf-8")


def test_a_vocabulary_is_learnt_and_counted(gpt2, here):
    status, out, _ = gpt2("tokenizer", "train", "text.txt", "--vocab-size", "260", "-o", "vocabulary")
    assert (status, out) == (0, "vocabulary: 260 tokens\n")
    assert len(json.loads((here / "vocabulary" / "vocab.json").read_text(encoding="utf-8"))) == 260


def test_a_text_with_too_few_pairs_is_explained(gpt2, here):
    _, out, _ = gpt2("tokenizer", "train", "text.txt", "-o", "vocabulary")
    tokens = len(json.loads((here / "vocabulary" / "vocab.json").read_text(encoding="utf-8")))
    assert tokens < 300
    assert out.splitlines() == [
        f"vocabulary: {tokens} tokens",
        "(fewer than 8,192: no other pair of tokens occurs twice in this text)",
    ]
