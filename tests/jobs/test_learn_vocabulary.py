import json

import numpy as np
import pytest

from gpt2kit.config.reading import ReadingConfig
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


def test_any_kind_of_text_can_be_learnt_from(here):
    (here / "text.txt").write_text(TEXT, encoding="utf-8")
    (here / "text.jsonl").write_text(json.dumps({"body": TEXT}), encoding="utf-8")
    (here / "text.csv").write_text(f'n,body\n1,"{TEXT}"\n', encoding="utf-8", newline="")
    vocabularies = []
    for name, reading in (("text.txt", None), ("text.jsonl", "field"), ("text.csv", "column")):
        options = ReadingConfig(**{reading: "body"}) if reading else None
        vocabularies.append(learn([name], 280, here / name.replace(".", "-"), reading=options).sha256)
    assert len(set(vocabularies)) == 1


def test_ids_are_nothing_to_learn_words_from(here):
    np.savez("ids.npz", np.array([1, 2]))
    with pytest.raises(DataError, match=r"ids\.npz: holds ids, not text"):
        learn(["ids.npz"], 280, here / "vocabulary")
