import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from gpt2kit.errors import FormatError, RequestError
from gpt2kit.tokenizer.open import holds_tokenizer, open_tokenizer
from gpt2kit.tokenizer.wordpiece import LONGEST_WORD, WordPiece

FIXTURE = "fixtures/gpt2ml"
SEPARATOR = 102
# Characters without a meaning yet (Cn) differ between versions of Unicode, halves of a pair (Cs) are not text.
CHARACTERS = st.characters(exclude_categories=["Cn", "Cs"])
BORDERS = st.sampled_from("今天気，。！a Bé É́\t\n\r\x00\x1f\xa0\u200b\u2028\u3000\ufffd豈𠀀#[]_^ſİ")
TEXTS = st.text(CHARACTERS) | st.text(BORDERS)


@pytest.fixture(scope="module")
def vocabulary(shared):
    return (shared / FIXTURE / "vocab.txt").read_bytes()


@pytest.fixture(scope="module")
def chinese(vocabulary):
    return open_tokenizer({"vocab.txt": vocabulary}, "here")


@pytest.fixture(scope="module")
def by_hugging_face(vocabulary):
    """The same vocabulary in the `tokenizers` library; there a word may have 100 characters."""
    tokens = {token.strip(): id for id, token in enumerate(vocabulary.decode().split("\n"))}
    return BertWordPieceTokenizer(tokens, lowercase=True)


def small(*words, **settings):
    """A tokenizer of these tokens and the two that every one has."""
    files = {"vocab.txt": "\n".join(["[UNK]", "[SEP]", *words]).encode()}
    if settings:
        files["tokenizer_config.json"] = json.dumps(settings).encode()
    return open_tokenizer(files, "here")


# --- equal to others ---


def test_encodings_are_those_of_gpt2_mls_tokenization_py(shared, chinese):
    expected = json.loads((shared / FIXTURE / "encodings.json").read_text("utf-8"))
    assert [chinese.encode(case["text"]) for case in expected] == [case["ids"] for case in expected]


@given(text=TEXTS)
def test_any_text_is_encoded_as_by_hugging_face(chinese, by_hugging_face, text):
    text = text.replace("Σ", "")  # Python's lower case, as in tokenization.py, knows the ς at the end of a word
    assert chinese.encode(text) == by_hugging_face.encode(text, add_special_tokens=False).ids


# --- words ---


def test_the_longest_token_is_taken_each_time():
    tokenizer = small("ab", "abc", "##c", "##d", "##cd")
    assert tokenizer.encode("abcd") == [3, 5]
    assert tokenizer.encode("abccd") == [3, 6]


def test_a_word_that_cannot_be_spelled_is_unknown_as_a_whole():
    assert small("a", "##b").encode("ab abc a") == [2, 3, 0, 2]


def test_a_word_of_over_200_characters_is_unknown():
    tokenizer = small("a", "##a")
    assert tokenizer.encode("a" * LONGEST_WORD) == [2] + [3] * (LONGEST_WORD - 1)
    assert tokenizer.encode("a" * (LONGEST_WORD + 1)) == [0]


def test_case_and_accents_stay_where_the_settings_say_so():
    words = ("A", "a", "É", "E", "e")
    assert small(*words).encode("A É") == [3, 6]
    assert small(*words, do_lower_case=False).encode("A É") == [2, 4]
    assert small(*words, do_lower_case=False, strip_accents=True).encode("A É") == [2, 5]


def test_chinese_characters_make_one_word_where_the_settings_say_so():
    words = ("今", "天", "今天")
    assert small(*words).encode("今天") == [2, 3]
    assert small(*words, tokenize_chinese_chars=False).encode("今天") == [4]


# --- special tokens ---


def test_special_tokens_in_a_text_stay_text(chinese):
    assert SEPARATOR not in chinese.encode("今天[SEP]<|endoftext|>")


def test_special_tokens_count_where_they_are_asked_for(chinese):
    assert chinese.encode("[CLS]今[SEP]<|endoftext|>", special=True) == [101, 687, SEPARATOR, SEPARATOR]


def test_the_end_token_is_the_separator(chinese):
    assert chinese.end_id == SEPARATOR
    assert chinese.vocab_size == 8021


# --- back to text ---


def test_text_is_joined_without_spaces_marks_or_unknown_words(chinese):
    assert chinese.decode(chinese.encode("Hello World 2019年，龘机器！")) == "helloworld2019年，机器！"


def test_bytes_of_a_token_are_whole_characters(chinese):
    assert chinese.bytes_of(687) == "今".encode()
    assert chinese.bytes_of(SEPARATOR) == b"[SEP]"


@pytest.mark.parametrize("id", [-1, 8021])
def test_ids_beyond_the_vocabulary_are_refused(chinese, id):
    with pytest.raises(RequestError, match="not in the vocabulary, whose ids are 0 to 8020"):
        chinese.bytes_of(id)


# --- joining and cutting ---


def test_texts_are_joined_by_the_end_token(chinese):
    joined = chinese.encode_joined(["今天", "", "明天[SEP]"])
    assert joined.dtype == np.uint32
    assert joined.tolist() == [*chinese.encode("今天"), SEPARATOR, SEPARATOR, *chinese.encode("明天[SEP]")]


@given(text=TEXTS, start=st.integers(1, 20))
def test_a_border_changes_no_ids(chinese, text, start):
    border = chinese.find_border(text, start)
    if border is not None:
        assert border >= start
        assert chinese.encode(text[:border]) + chinese.encode(text[border:]) == chinese.encode(text)


def test_chinese_text_has_borders_without_spaces(chinese):
    assert chinese.find_border("今天天气很好", 3) == 3


# --- files ---


def test_a_vocabulary_without_a_last_line_end_has_as_many_tokens():
    assert small("a").vocab_size == open_tokenizer({"vocab.txt": b"[UNK]\n[SEP]\na\n"}, "here").vocab_size == 3


def test_tokens_are_stripped_and_the_last_of_equal_ones_counts():
    tokenizer = small("a\r", "", " a ")
    assert tokenizer.encode("a") == [4]
    assert tokenizer.decode([2, 4]) == "aa"
    assert list(tokenizer.ids) == [0, 1, 2, 4]


def test_what_decides_the_ids_decides_the_hash():
    assert small("a").sha256 == small("a").sha256
    assert len({small("a").sha256, small("b").sha256, small("a", do_lower_case=False).sha256}) == 3


def test_a_byte_level_vocabulary_beside_it_comes_first(golden):
    files = {name: (golden / "hf-safetensors" / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    assert not isinstance(open_tokenizer({**files, "vocab.txt": b"[UNK]\n[SEP]"}, "here"), WordPiece)


def test_a_tokenizer_json_beside_it_repeats_it(vocabulary):
    files = {"vocab.txt": vocabulary, "tokenizer.json": b"{}"}
    assert holds_tokenizer(files)
    assert open_tokenizer(files, "here").vocab_size == 8021


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r"0 lines, none of them \[UNK\]"),
        (b"[UNK]\n", r"1 lines, none of them \[SEP\]"),
        (b"\x80", "not UTF-8"),
    ],
)
def test_another_file_of_that_name_is_refused(content, problem):
    with pytest.raises(FormatError, match=rf"^here/vocab\.txt: {problem}"):
        open_tokenizer({"vocab.txt": content}, "here")
