import pytest

LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
HELLO = [39, 68, 274, 78, 261, 272, 311]

ASKED = [
    {"prompt": "Hello world"},
    {"prompt": ["Hello world", "A", ""], "n": 2, "best_of": 2},
    {"prompt": "Hello world", "logprobs": 3, "return_token_ids": True, "return_entropy": True},
    {"prompt": "Hello world", "logprobs": 2, "echo": True, "n": 2},
    {"prompt": "床前明月光 🙂", "logprobs": 0, "echo": True, "max_tokens": 0},
    {"prompt": "Hello world", "echo": True, "prompt_logprobs": 2, "return_token_ids": True},
    {"prompt": "A", "temperature": 0, "max_tokens": 40, "stop": ["e", "th"], "logprobs": 1},
    {"prompt": "A", "max_tokens": 40, "stop": ["e"], "include_stop_str_in_output": True},
    {"prompt": [HELLO, [5]], "logit_bias": {"319": 8}, "max_tokens": 30},
    {"prompt": "Hello", "forced_ids": [39, 68, 274], "until_sentence": True, "max_tokens": 60},
]


def joined(chunks):
    """What the chunks of a stream add up to, choice by choice."""
    whole = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            known = whole.setdefault(choice["index"], {**choice, "text": "", "logprobs": None, "finish_reason": None})
            known["text"] += choice["text"]
            assert known["finish_reason"] is None, "nothing follows the last chunk of a choice"
            known["finish_reason"] = choice["finish_reason"]
            for name, entries in (choice["logprobs"] or {}).items():
                known["logprobs"] = known["logprobs"] or {}
                known["logprobs"].setdefault(name, []).extend(entries)
            if "token_ids" in choice:
                known["token_ids"] = known.get("told_ids", []) + choice["token_ids"]
                known["told_ids"] = known["token_ids"]
    for choice in whole.values():
        choice.pop("told_ids", None)
    return [whole[index] for index in sorted(whole)]


@pytest.mark.slow
@pytest.mark.parametrize("asked", ASKED, ids=range(len(ASKED)))
def test_the_chunks_of_a_stream_are_the_whole_answer(complete, stream, asked):
    assert joined(stream(**asked, seed=4)) == complete(**asked, seed=4)["choices"]


def test_all_chunks_belong_to_one_answer(complete, stream):
    chunks, whole = stream(prompt="A", seed=1), complete(prompt="A", seed=1)
    heads = [{name: value for name, value in chunk.items() if name != "choices"} for chunk in chunks]
    assert all(head == heads[0] for head in heads)
    assert heads[0].keys() == whole.keys() - {"choices", "usage"}
    assert (heads[0]["object"], heads[0]["seed"], heads[0]["model"]) == ("text_completion", 1, "hf-safetensors")


def test_usage_comes_last_where_it_is_asked_for(complete, stream):
    *chunks, last = stream(prompt="A", n=2, seed=1, stream_options={"include_usage": True})
    assert (last["choices"], last["usage"]) == ([], complete(prompt="A", n=2, seed=1)["usage"])
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


def test_a_chunk_tells_one_token_where_logprobs_are_asked_for(stream):
    chunks = stream(prompt="A", logprobs=0, max_tokens=9, ignore_eos=True)
    assert [len(chunk["choices"][0]["logprobs"]["tokens"]) for chunk in chunks[:9]] == [1] * 9


def test_half_a_character_is_held_back(local, stream):
    first, second = local.tokenizer.encode("é")
    chunks = stream(prompt="A", forced_ids=[first, second], max_tokens=2, logprobs=0, ignore_eos=True)
    assert [chunk["choices"][0]["text"] for chunk in chunks[:2]] == ["", "é"]
    assert chunks[0]["choices"][0]["logprobs"]["tokens"] == ["bytes:\\xc3"]


def test_chunks_without_text_come_only_where_tokens_are_told(local, stream):
    ids = local.tokenizer.encode("é")
    chunks = stream(prompt="A", forced_ids=ids, max_tokens=2, ignore_eos=True)
    assert [chunk["choices"][0]["text"] for chunk in chunks if not chunk["choices"][0]["finish_reason"]] == ["é"]


def test_no_chunk_shows_what_becomes_a_stop_string(local, stream):
    ids = local.tokenizer.encode("A stop")
    chunks = stream(prompt="A", forced_ids=ids, max_tokens=len(ids), stop=" stop")
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "A"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_what_lies_between_must_not_keep_a_stream(api):
    headers = api.post("/v1/completions", json={"stream": True, "max_tokens": 1}).headers
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")


@pytest.mark.parametrize("fields", [{"prompt": "A" * 100}, {"prompt": [999]}, {"temperature": -1}, {"model": "other"}])
def test_what_is_refused_opens_no_stream(refuse, fields):
    status, error = refuse(**fields, stream=True)
    assert status in (400, 404)
    assert error["message"]
