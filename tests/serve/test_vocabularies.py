"""Served models of other vocabularies. BERT's: what is answered in pieces is whole, ids are those of vocab.txt."""

import json

import pytest

from gpt2kit.jobs.init import init


@pytest.fixture(scope="module")
def chinese(shared, tmp_path_factory, client_of):
    words, directory = tmp_path_factory.mktemp("words"), tmp_path_factory.mktemp("models") / "chinese"
    (words / "vocab.txt").write_bytes((shared / "fixtures" / "gpt2ml" / "vocab.txt").read_bytes())
    init("tiny", words, directory)
    with client_of(directory) as client:
        yield client


def test_text_is_answered_with_text(chinese):
    answer = chinese.post("/v1/completions", json={"prompt": "今天", "max_tokens": 8, "seed": 1}).json()
    assert answer["choices"][0]["text"]
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10}


def test_token_ids_are_those_of_the_vocabulary(chinese):
    assert chinese.post("/tokenize", json={"prompt": "今天。"}).json()["tokens"] == [687, 1646, 545]


def test_streamed_pieces_are_the_whole_text(chinese):
    asked = {"prompt": "今天", "max_tokens": 8, "seed": 1}
    whole = chinese.post("/v1/completions", json=asked).json()["choices"][0]["text"]
    lines = chinese.post("/v1/completions", json={**asked, "stream": True}).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(event["choices"][0]["text"] for event in events if event["choices"]) == whole


def test_the_tokenizer_is_told_as_berts(chinese):
    told = chinese.get("/tokenizer_info").json()
    assert (told["tokenizer_class"], told["vocab_size"], told["eos_token_id"]) == ("BertTokenizer", 8021, 102)
    assert (told["eos_token"], told["unk_token"]) == ("[SEP]", "[UNK]")


def test_gpt2_ml_is_served_by_its_own_rules(shared, client_of):
    """Its padding, id 0, is never chosen, however it is favoured."""
    with client_of(shared / "fixtures" / "gpt2ml") as client:
        asked = {
            "prompt": "今天",
            "max_tokens": 4,
            "temperature": 0,
            "logit_bias": {"0": 100},
            "return_token_ids": True,
        }
        answer = client.post("/v1/completions", json=asked)
    assert answer.status_code == 200
    assert "[PAD]" not in answer.json()["choices"][0]["text"]


def test_a_model_of_characters_writes_them(shared, client_of):
    with client_of(shared / "fixtures" / "nanogpt") as client:
        told = client.get("/tokenizer_info").json()
        assert (told["tokenizer_class"], told["eos_token"], told["eos_token_id"]) == ("Characters", None, None)
        answer = client.post("/v1/completions", json={"prompt": "", "max_tokens": 8, "seed": 1}).json()
        assert len(answer["choices"][0]["text"]) == 8
