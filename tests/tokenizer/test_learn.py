import json

import pytest

from gpt2kit.errors import ConfigError, DataError
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.learn import learn_vocabulary
from gpt2kit.tokenizer.vocabulary import read_vocabulary

END = "<|endoftext|>"
TEXT = "the cat sat on the mat, the other cat sat on the other mat; 猫坐在垫子上，另一只猫坐在另一张垫子上。\n" * 20
UNSEEN = f"The dog's   hat\n\t犬 🙂 {END} 2019"


@pytest.fixture(scope="module")
def learnt():
    return learn_vocabulary([TEXT], 300)


@pytest.fixture(scope="module")
def directory(learnt, tmp_path_factory):
    directory = tmp_path_factory.mktemp("learnt")
    for name, content in learnt.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(scope="module")
def tokenizer(learnt):
    return ByteLevelBPE(read_vocabulary(learnt, "learnt"))


@pytest.mark.parametrize("text", [TEXT, UNSEEN], ids=["seen", "unseen"])
def test_transformers_opens_it_and_gives_equal_ids(transformers, directory, tokenizer, text):
    judge = transformers.AutoTokenizer.from_pretrained(directory)
    assert judge(text)["input_ids"] == tokenizer.encode(text, special=True)


def test_transformers_opens_the_old_pair_and_gives_equal_ids(transformers, learnt, tokenizer, tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(learnt[name])
    judge = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert judge(UNSEEN)["input_ids"] == tokenizer.encode(UNSEEN, special=True)


def test_transformers_finds_the_end_token(transformers, directory):
    judge = transformers.AutoTokenizer.from_pretrained(directory)
    assert (judge.eos_token, judge.bos_token, judge.eos_token_id) == (END, END, 299)


def test_the_single_file_holds_the_same_as_the_pair(learnt, tokenizer):
    from_single_file = read_vocabulary({"tokenizer.json": learnt["tokenizer.json"]}, "learnt")
    assert ByteLevelBPE(from_single_file).encode(UNSEEN, special=True) == tokenizer.encode(UNSEEN, special=True)


def test_the_first_256_ids_are_the_bytes_in_openais_order(shared, learnt):
    openais = json.loads((shared / "data" / "encoder.json").read_text("utf-8"))
    ids = json.loads(learnt["vocab.json"])
    assert sorted(ids, key=ids.get)[:256] == sorted(openais, key=openais.get)[:256]


def test_the_end_token_comes_last_as_in_openais_vocabulary(learnt):
    assert json.loads(learnt["vocab.json"])[END] == 299


def test_merged_tokens_stand_in_the_order_of_the_merges(learnt):
    ids = json.loads(learnt["vocab.json"])
    merges = learnt["merges.txt"].decode().splitlines()[1:]
    assert [ids[merge.replace(" ", "")] for merge in merges] == list(range(256, 299))


def test_the_most_frequent_pair_is_merged_first():
    # "ab" occurs six times, "ba" four times.
    assert learn_vocabulary(["ababab", "ababab"], 258)["merges.txt"] == b"#version: 0.2\na b\n"


def test_a_short_text_gives_fewer_tokens_than_asked_for():
    # Only "ab" occurs twice: 256 bytes, this pair and the end.
    assert len(json.loads(learn_vocabulary(["ab ab"], 5000)["vocab.json"])) == 258


def test_the_same_texts_give_the_same_files(learnt):
    assert learn_vocabulary([TEXT], 300) == learnt


def test_fewer_tokens_than_bytes_are_refused():
    with pytest.raises(ConfigError, match=r"^a byte-level vocabulary has at least 257 tokens, got 256$"):
        learn_vocabulary(["text"], 256)


@pytest.mark.parametrize("texts", [[], [""]])
def test_nothing_to_learn_from_is_refused(texts):
    with pytest.raises(DataError, match=r"^nothing to learn a vocabulary from: the text is empty$"):
        learn_vocabulary(texts, 300)


def test_an_empty_text_before_others_is_passed_over():
    assert b"\na b\n" in learn_vocabulary(["", "ababab"], 258)["merges.txt"]
