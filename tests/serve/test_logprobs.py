import numpy as np
import pytest

A = 32
HELLO = [39, 68, 274, 78, 261, 272, 311]
NOT_ASCII = [*range(94, 188), *range(222, 256)]  # the tokens of single bytes from 128 on
CLOSE = 2e-4  # float32 in two programs


@pytest.fixture(scope="module")
def judged(golden):
    """Token ids, and the log-probabilities that another program gives all tokens in each place."""
    expected = np.load(golden / "hf-safetensors" / "expected.npz")
    logits_TV = expected["logits_0"][0].astype(np.float64)
    logits_TV -= logits_TV.max(-1, keepdims=True)
    return expected["tokens_0"][0].tolist(), logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def told(complete):
    """The logprobs of the one choice, and its text."""

    def asked(**body):
        (choice,) = complete(**{"prompt": "Hello world", "seed": 1, "logprobs": 3, **body})["choices"]
        return choice["logprobs"], choice["text"]

    return asked


def test_an_echo_tells_what_another_program_gives_the_prompt(judged, told):
    ids, expected_TV = judged
    found, _ = told(prompt=ids, echo=True, max_tokens=0, logprobs=5, return_token_ids=True, return_entropy=True)
    assert found["token_ids"] == ids
    assert (found["token_logprobs"][0], found["top_logprobs"][0], found["entropy"][0]) == (None, None, None)
    for place, id in enumerate(ids[1:]):
        expected_V = expected_TV[place]
        assert found["token_logprobs"][place + 1] == pytest.approx(expected_V[id], abs=CLOSE)
        assert found["entropy"][place + 1] == pytest.approx(-(np.exp(expected_V) * expected_V).sum(), abs=CLOSE)
        likeliest = found["top_token_ids"][place + 1][:5]
        assert expected_V[likeliest] == pytest.approx(np.sort(expected_V)[::-1][:5], abs=CLOSE)


def test_prompt_logprobs_tell_the_same_by_id(judged, complete):
    ids, expected_TV = judged
    first, *others = complete(prompt=ids, prompt_logprobs=2, max_tokens=1)["choices"][0]["prompt_logprobs"]
    assert first is None
    for place, (id, entry) in enumerate(zip(ids[1:], others, strict=True)):
        assert str(int(expected_TV[place].argmax())) in entry
        assert entry[str(id)]["logprob"] == pytest.approx(expected_TV[place, id], abs=CLOSE)
        assert len(entry) in (2, 3)


def test_a_text_is_judged_alike_when_it_is_written_and_when_it_is_read(complete, told):
    (choice,) = complete(prompt=HELLO, seed=1, logprobs=3, return_token_ids=True, ignore_eos=True)["choices"]
    again, _ = told(prompt=[*HELLO, *choice["token_ids"]], echo=True, max_tokens=0)
    written, read = choice["logprobs"], {name: entries[len(HELLO) :] for name, entries in again.items()}
    assert read["tokens"] == written["tokens"]
    assert read["token_logprobs"] == pytest.approx(written["token_logprobs"], abs=CLOSE)
    assert [top.keys() for top in read["top_logprobs"]] == [top.keys() for top in written["top_logprobs"]]


@pytest.mark.parametrize("fields", [{}, {"echo": True}, {"echo": True, "max_tokens": 0}, {"temperature": 0}])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_the_chosen_token_is_among_the_alternatives_with_the_very_same_number(told, fields, count):
    found, _ = told(logprobs=count, **fields)
    for name, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        assert logprob is None or top[name] == logprob
        assert logprob is None or len(top) in (count, count + 1)


@pytest.mark.parametrize("fields", [{}, {"echo": True, "prompt": "A", "max_tokens": 40}])
def test_the_likeliest_token_has_the_largest_of_the_numbers(told, fields):
    found, _ = told(temperature=0, logprobs=4, **fields)
    written = slice(1 if fields else 0, None)
    assert found["token_logprobs"][written] == [max(top.values()) for top in found["top_logprobs"][written]]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("prompt", ["Hello world", "", "A<|endoftext|>B"])
def test_offsets_point_at_the_tokens_in_the_text(told, echo, prompt):
    found, text = told(prompt=prompt, echo=echo, parse_special=True, banned_ids=NOT_ASCII, max_tokens=20)
    assert text.isascii()
    assert "".join(found["tokens"]) == text
    for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
        assert text[offset : offset + len(token)] == token


def test_a_token_that_is_no_whole_text_is_told_as_bytes(told):
    found, text = told(prompt="é🙂", echo=True, max_tokens=0)
    assert found["tokens"][:2] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert found["text_offset"][:3] == [0, 0, 1]
    content = b"".join(bytes.fromhex(token.removeprefix("bytes:").replace("\\x", "")) for token in found["tokens"])
    assert content.decode() == text == "é🙂"


def test_tokens_are_told_as_ids_where_that_is_wanted(told):
    found, _ = told(prompt=HELLO, echo=True, max_tokens=1, return_tokens_as_token_ids=True, ignore_eos=True)
    assert found["tokens"][: len(HELLO)] == [f"token_id:{id}" for id in HELLO]
    assert all(name.startswith("token_id:") for top in found["top_logprobs"][1:] for name in top)


def test_what_was_not_asked_for_is_not_told(complete, told):
    assert complete()["choices"][0]["logprobs"] is None
    assert set(told()[0]) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert set(complete()["choices"][0]) == {"index", "text", "logprobs", "finish_reason"}


def test_a_token_that_was_forbidden_is_still_told_as_likely_as_the_model_finds_it(told):
    free, _ = told(temperature=0, max_tokens=1)
    (likeliest,) = free["tokens"]
    forbidden, _ = told(temperature=0, max_tokens=1, bad_words=[likeliest], return_token_ids=True)
    assert forbidden["top_logprobs"][0][likeliest] == free["token_logprobs"][0]
    assert forbidden["tokens"] != free["tokens"]
