import pytest

from gpt2kit.errors import ConfigError, DataError
from gpt2kit.jobs.learn_vocabulary import learn

TEXT = "the cat sat on the mat, the dog ate the fog\n" * 30


def test_a_learnt_vocabulary_is_written_where_transformers_reads_it(here, transformers):
    (here / "text.txt").write_text(TEXT, encoding="utf-8")
    ours = learn(["text.txt"], 270, here / "vocabulary")
    theirs = transformers.AutoTokenizer.from_pretrained(here / "vocabulary")
    assert len(theirs) == ours.vocab_size == 270
    assert theirs("the dog 猫").input_ids == ours.encode("the dog 猫")


def test_nothing_is_written_where_nothing_can_be_learnt(here):
    (here / "empty.txt").touch()
    with pytest.raises(DataError):
        learn(["empty.txt"], 280, here / "vocabulary")
    assert not (here / "vocabulary").exists()


def test_a_vocabulary_smaller_than_its_bytes_is_refused(here):
    (here / "text.txt").write_text(TEXT, encoding="utf-8")
    with pytest.raises(ConfigError, match="at least 257 tokens, got 100"):
        learn(["text.txt"], 100, here / "vocabulary")
