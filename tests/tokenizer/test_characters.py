import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.errors import FormatError, RequestError
from gpt2kit.tokenizer.open import holds_tokenizer, holds_vocabulary, open_tokenizer

ALPHABET = "\n abcé床🙂"


LIST = json.dumps([*ALPHABET])


def opened(content=LIST):
    return open_tokenizer({"characters.json": content.encode()}, "here")


@given(st.text(ALPHABET))
def test_every_character_is_a_token(text):
    tokenizer = opened()
    ids = tokenizer.encode(text)
    assert ids == [ALPHABET.index(character) for character in text]
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.bytes_of, ids)) == text.encode()


def test_a_line_break_begins_a_text_and_nothing_ends_one():
    tokenizer = opened()
    assert tokenizer.begin_id == 0
    assert tokenizer.end_id not in tokenizer.ids
    assert list(tokenizer.encode_joined(["a", "", "\nb"])) == [2, 8, 8, 0, 3]


def test_without_a_line_break_the_first_character_begins_it():
    assert opened('["b", "a"]').begin_id == 0


def test_a_text_can_be_cut_anywhere():
    assert [opened().find_border("abc", start) for start in (1, 2, 3)] == [1, 2, None]


@pytest.mark.parametrize("text", ["x", "a<|endoftext|>"])
@pytest.mark.parametrize("special", [False, True])
def test_other_characters_are_refused(text, special):
    with pytest.raises(RequestError, match=r"knows 8 characters, and '[x<]' is none of them"):
        opened().encode(text, special=special)


@pytest.mark.parametrize("id", [-1, 8])
def test_ids_beyond_are_refused(id):
    with pytest.raises(RequestError, match=f"token id {id} is not in the vocabulary, whose ids are 0 to 7"):
        opened().decode([id])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[", "not JSON"),
        ("[" * 10**6, "not JSON"),
        ("{}", "expected a list of characters"),
        ("[]", "expected a list of characters"),
        ('["a", "bc"]', "token 1 is 'bc'; expected one character"),
        ('["a", ""]', "token 1 is ''; expected one character"),
        ('["a", 1]', "token 1 is 1; expected one character"),
        ('["\\ud800"]', "token 0 is .*; expected one character"),
        ('["a", "b", "a"]', "'a' stands for more than one token"),
    ],
)
def test_what_is_no_such_list_is_refused(content, told):
    with pytest.raises(FormatError, match=rf"here/characters\.json: .*{told}"):
        opened(content)


def test_equal_lists_are_equal_vocabularies():
    assert opened().sha256 == opened(json.dumps([*ALPHABET], ensure_ascii=False)).sha256 != opened('["a"]').sha256


def test_beside_another_vocabulary_it_is_none(golden):
    files = {name: (golden / "hf-safetensors" / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    both = files | {"characters.json": b'["a"]'}
    assert open_tokenizer(both, "here").vocab_size == 320
    assert holds_tokenizer({"characters.json": b'["a"]'})
    assert not holds_vocabulary({"characters.json": b'["a"]'})
