import json

import pytest


@pytest.fixture(scope="module")
def encodings(golden):
    """Texts and their ids by Hugging Face's tokenizer, those without its special token."""
    known = json.loads((golden / "hf-safetensors" / "encodings.json").read_text("utf-8"))
    return [(entry["text"], entry["ids"]) for entry in known if "<|endoftext|>" not in entry["text"]]


def test_tokens_are_those_of_another_tokenizer(ask, encodings):
    for text, ids in encodings:
        assert ask("/tokenize", prompt=text) == {"count": len(ids), "max_model_len": 56, "tokens": ids}


def test_there_and_back(ask, encodings):
    for text, ids in encodings:
        assert ask("/detokenize", tokens=ids) == {"prompt": text}


def test_the_special_token_is_one_token_unless_that_is_not_wanted(ask):
    assert ask("/tokenize", prompt="<|endoftext|>")["tokens"] == [319]
    assert ask("/tokenize", prompt="<|endoftext|>", parse_special=False)["count"] > 1
    assert ask("/detokenize", tokens=[319])["prompt"] == "<|endoftext|>"


def test_asking_for_special_tokens_adds_none(ask):
    assert ask("/tokenize", prompt="A", add_special_tokens=True) == ask(
        "/tokenize", prompt="A", add_special_tokens=False
    )


@pytest.mark.parametrize("text", ["Hello world", "é🙂 床", "", "A\0\n"])
def test_tokens_are_shown_and_placed(ask, text):
    told = ask("/tokenize", prompt=text, return_token_strs=True, return_offsets=True)
    shown = [
        bytes.fromhex(s[6:].replace("\\x", "")) if s.startswith("bytes:") else s.encode() for s in told["token_strs"]
    ]
    assert b"".join(shown).decode() == text
    so_far = [b"".join(shown[:place]).decode(errors="ignore") for place in range(len(shown))]
    assert told["offsets"] == [len(whole) for whole in so_far]


def test_half_a_character_is_shown_as_damage(ask):
    first, _ = ask("/tokenize", prompt="é")["tokens"]
    assert ask("/detokenize", tokens=[first]) == {"prompt": "\ufffd"}


def test_no_tokens_are_no_text(ask):
    assert ask("/detokenize", tokens=[]) == {"prompt": ""}


def test_the_tokenizer_is_described_for_lm_eval(api):
    told = api.get("/tokenizer_info").json()
    assert (told["eos_token"], told["bos_token"], told["vocab_size"]) == ("<|endoftext|>", "<|endoftext|>", 320)
    assert (told["eos_token_id"], told["model_max_length"]) == (319, 56)
    assert api.get("/tokenizer_info", params={"model": "other"}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": 5}, 400, "prompt"),
        ("/tokenize", {"prompt": "A", "model": "other"}, 404, "model"),
        ("/detokenize", {"tokens": [320]}, 400, "tokens"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": ["A"]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": "A"}, 400, "tokens"),
    ],
)
def test_what_is_wrong_is_refused_by_field(refuse, path, body, status, param):
    found, error = refuse(path, **body)
    assert (found, error["param"]) == (status, param)
