import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer, Tokenizer

from gpt2kit.errors import FormatError, RequestError
from gpt2kit.tokenizer.open import holds_tokenizer, holds_vocabulary, holds_wordpiece, open_tokenizer
from gpt2kit.tokenizer.wordpiece import WordPiece

FIXTURE = "fixtures/gpt2ml"
SEPARATOR = 102
UNKNOWN = 100
OLD_UNICODE = unicodedata.ucd_3_2_0
CHARACTERS = st.characters(exclude_categories=["Cn", "Cs"])  # halves of a pair are not text
BORDERS = st.sampled_from("今天気，。！a Bé É́\t\n\r\x00\x1f\xa0\u200b\u2028\u3000\ue000\ufffd豈𠀀#[]_^ſİ")
TEXTS = st.text(CHARACTERS) | st.text(BORDERS)


@pytest.fixture(scope="module")
def vocabulary(shared):
    return (shared / FIXTURE / "vocab.txt").read_bytes()


@pytest.fixture(scope="module")
def chinese(vocabulary):
    return open_tokenizer({"vocab.txt": vocabulary}, "here")


@pytest.fixture(scope="module")
def by_hugging_face(vocabulary):
    """The same vocabulary in the `tokenizers` library."""
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


@pytest.fixture(scope="module", params=["vocab.txt", "tokenizer.json"])
def in_their_layout(request, vocabulary, by_hugging_face):
    if request.param == "tokenizer.json":
        return open_tokenizer({"tokenizer.json": by_hugging_face.to_str().encode()}, "here")
    return open_tokenizer({"vocab.txt": vocabulary, "tokenizer_config.json": b"{}"}, "here")


@given(text=TEXTS)
def test_any_text_is_encoded_as_by_hugging_face(in_their_layout, by_hugging_face, text):
    # What changed in Unicode is another thing for Python than for the library; and Python's lower case, as in
    # tokenization.py, knows the ς at the end of a word.
    text = "".join(c for c in text if OLD_UNICODE.category(c) == unicodedata.category(c) and c != "Σ")
    assert in_their_layout.encode(text) == by_hugging_face.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("length", [100, 101])
def test_words_are_as_long_as_hugging_faces(in_their_layout, by_hugging_face, length):
    text = "hello" * 20 + "s" * (length - 100)
    assert in_their_layout.encode(text) == by_hugging_face.encode(text, add_special_tokens=False).ids
    assert (in_their_layout.encode(text) == [UNKNOWN]) == (length == 101)


def test_private_characters_are_unknown_to_tokenization_py_and_nothing_to_hugging_face(chinese, in_their_layout):
    """tokenization.py drops the categories Cc and Cf, the library Co as well."""
    assert chinese.encode("今\ue000") == [687, UNKNOWN]
    assert in_their_layout.encode("今\ue000") == [687]


# --- words ---


def test_the_longest_token_is_taken_each_time():
    tokenizer = small("ab", "abc", "##c", "##d", "##cd")
    assert tokenizer.encode("abcd") == [3, 5]
    assert tokenizer.encode("abccd") == [3, 6]


def test_a_word_that_cannot_be_spelled_is_unknown_as_a_whole():
    assert small("a", "##b").encode("ab abc a") == [2, 3, 0, 2]


def test_a_word_of_over_200_characters_is_unknown():
    tokenizer = small("a", "##a")
    assert tokenizer.encode("a" * 200) == [2] + [3] * 199
    assert tokenizer.encode("a" * 201) == [0]


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


# --- tokenizer.json alone ---


def in_json(**changes):
    """The files of a tokenizer with ten tokens, some parts of them changed."""
    words = ("[UNK]", "[SEP]", "A", "a", "É", "é", "今", "天", "今天", "[CLS]")
    library = BertWordPieceTokenizer({word: id for id, word in enumerate(words)}, lowercase=False)
    whole = json.loads(library.to_str())
    for path, value in changes.items():
        part, _, name = path.partition("__")
        whole[part] = {**whole[part], name: value} if name else value
    return {"tokenizer.json": json.dumps(whole).encode()}


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("strip", [True, False, None])
@pytest.mark.parametrize("split", [True, False])
def test_the_normalizer_of_a_tokenizer_json_counts(lower, strip, split):
    settings = {"lowercase": lower, "strip_accents": strip, "handle_chinese_chars": split}
    files = in_json(**{f"normalizer__{name}": value for name, value in settings.items()})
    theirs = Tokenizer.from_str(files["tokenizer.json"].decode())
    text = "A a É é 今天"
    assert open_tokenizer(files, "here").encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_tokenizer_config_json_overrules_a_tokenizer_json():
    files = {**in_json(), "tokenizer_config.json": b'{"do_lower_case": true, "strip_accents": false}'}
    assert open_tokenizer(files, "here").encode("A É") == [3, 5]


def test_added_tokens_have_a_text_and_holes_have_none():
    tokenizer = open_tokenizer(in_json(added_tokens=[{"id": 12, "content": "[BOS]"}]), "here")
    assert tokenizer.vocab_size == 13
    assert tokenizer.decode([7, 12]) == "天[BOS]"
    assert list(tokenizer.ids) == [*range(10), 12]


def test_a_tokenizer_json_is_of_the_kind_that_its_model_is(golden):
    byte_level = {"tokenizer.json": (golden / "hf-v5" / "tokenizer.json").read_bytes()}
    named_alike = {"tokenizer.json": b'{"model": {"type": "BPE", "vocab": {"\\"": 0, "WordPiece": 1}}}'}
    broken = {"tokenizer.json": b'{"type": "WordPiece"'}
    assert [holds_wordpiece(files) for files in (in_json(), byte_level, named_alike, broken)] == [True] + 3 * [False]
    assert [holds_vocabulary(files) for files in (in_json(), byte_level, named_alike, broken)] == [False] + 3 * [True]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model__unk_token": "<unk>"}, r"unk_token is '<unk>'; expected '\[UNK\]'"),
        ({"model__continuing_subword_prefix": "@@"}, "continuing_subword_prefix is '@@'; expected '##'"),
        ({"model__max_input_chars_per_word": 0}, "max_input_chars_per_word is 0; expected a whole number above 0"),
        ({"model__vocab": {"[UNK]": 0, "a": 1}, "added_tokens": []}, r"2 tokens, none of them \[SEP\]"),
        ({"model__vocab": ["[UNK]"]}, "expected an object from tokens to ids"),
        ({"added_tokens": [{"id": 2**40, "content": "b"}]}, f"has the id {2**40}; expected ids below 1,048,576"),
        ({"added_tokens": [{"id": 7, "content": "b"}]}, "tokens '天' and 'b' share the id 7"),
        ({"added_tokens": 7}, "added_tokens: expected a list"),
        ({"normalizer": None}, "normalizer is None; expected 'BertNormalizer'"),
        ({"normalizer__clean_text": False}, "clean_text is False; expected True"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer is 'Whitespace'; expected 'BertPreTokenizer'"),
    ],
)
def test_another_tokenizer_json_is_refused(changes, problem):
    with pytest.raises(FormatError, match=rf"^here/tokenizer\.json: .*{problem}"):
        open_tokenizer(in_json(**changes), "here")


# --- files that are none ---


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r"0 tokens, none of them \[UNK\]"),
        (b"[UNK]\n", r"1 tokens, none of them \[SEP\]"),
        (b"\x80", "not UTF-8"),
    ],
)
def test_another_file_of_that_name_is_refused(content, problem):
    with pytest.raises(FormatError, match=rf"^here/vocab\.txt: {problem}"):
        open_tokenizer({"vocab.txt": content}, "here")
