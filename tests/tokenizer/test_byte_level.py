import json
import random
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from gpt2kit.errors import RequestError
from gpt2kit.tokenizer import byte_level
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.learn import learn_vocabulary
from gpt2kit.tokenizer.vocabulary import read_vocabulary

END = "<|endoftext|>"
MEBIBYTE = 1 << 20
# Characters without a meaning yet (Cn) differ between versions of Unicode, halves of a pair (Cs) are not text.
CHARACTERS = st.characters(exclude_categories=["Cn", "Cs"])
# All of Unicode's white space, and something of everything else that the pattern tells apart.
WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2005\u200a\u2028\u2029\u202f\u205f\u3000"
BORDERS = st.sampled_from(WHITE + "\u200b\x1c'stvelmdSTVELMD7½aé你́!_🙂")
TEXTS = st.text(CHARACTERS) | st.text(BORDERS) | st.text(st.sampled_from(" \n\ta'"))


def tokenizer_from(directory, *names):
    return ByteLevelBPE(read_vocabulary({name: (directory / name).read_bytes() for name in names}, directory.name))


@pytest.fixture(scope="module")
def openai(shared):
    """OpenAI's own vocabulary of 50257 tokens."""
    return tokenizer_from(shared / "data", "encoder.json", "vocab.bpe")


@pytest.fixture(scope="module")
def openai_by_hugging_face(shared):
    """The same vocabulary in the `tokenizers` library, which shares no code with tiktoken."""
    files = (str(shared / "data" / name) for name in ("encoder.json", "vocab.bpe"))
    judge = Tokenizer(models.BPE.from_file(*files))
    judge.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    judge.decoder = decoders.ByteLevel()
    return judge


@pytest.fixture(scope="module")
def tiny(golden):
    return tokenizer_from(golden / "hf-safetensors", "vocab.json", "merges.txt")


@pytest.fixture(scope="module")
def tiny_by_hugging_face(golden):
    return Tokenizer.from_file(str(golden / "hf-safetensors" / "tokenizer.json"))


# --- equal to what the old programs gave ---

# Made by OpenAI's encoder.py.
VECTORS = [
    ("", []),
    ("Hello world", [15496, 995]),
    ("We've  got 2019's\n\n  text", [1135, 1053, 220, 1392, 13130, 338, 628, 220, 2420]),
    ("你好，世界", [19526, 254, 25001, 121, 171, 120, 234, 10310, 244, 45911, 234]),
    ("DON'T don't", [41173, 6, 51, 836, 470]),
    ("<|endoftext|>", [27, 91, 437, 1659, 5239, 91, 29]),
    ("<|endoftext|>\n", [27, 91, 437, 1659, 5239, 91, 29, 198]),
    ("<|startoftext|>", [27, 91, 9688, 1659, 5239, 91, 29]),
]


@pytest.mark.parametrize(("text", "ids"), VECTORS)
def test_text_becomes_openais_ids(openai, text, ids):
    assert openai.encode(text) == ids


@pytest.mark.parametrize(("text", "ids"), VECTORS)
def test_openais_ids_become_text(openai, text, ids):
    assert openai.decode(ids) == text


@pytest.mark.parametrize("fixture", ["openai-tiny", "openai-deep", "openai-fullvocab"])
def test_encodings_are_those_of_openais_encoder(shared, fixture):
    directory = shared / "fixtures" / fixture
    tokenizer = tokenizer_from(directory, "encoder.json", "vocab.bpe")
    expected = json.loads((directory / "encodings.json").read_text("utf-8"))
    assert [tokenizer.encode(case["text"]) for case in expected] == [case["ids"] for case in expected]


@pytest.mark.parametrize("fixture", ["openai-tiny", "openai-deep", "openai-fullvocab"])
def test_decodings_are_those_of_openais_encoder(shared, fixture):
    directory = shared / "fixtures" / fixture
    tokenizer = tokenizer_from(directory, "encoder.json", "vocab.bpe")
    expected = json.loads((directory / "encodings.json").read_text("utf-8"))
    assert [tokenizer.decode(case["ids"]) for case in expected] == [case["decoded"] for case in expected]


def test_encodings_are_hugging_faces_when_special_tokens_count(golden, tiny):
    expected = json.loads((golden / "hf-safetensors" / "encodings.json").read_text("utf-8"))
    assert [tiny.encode(case["text"], special=True) for case in expected] == [case["ids"] for case in expected]


def test_encodings_are_llama_cpps(shared, openai):
    texts = (shared / "data/ggml-vocab-gpt-2.gguf.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    lines = (shared / "data/ggml-vocab-gpt-2.gguf.out").read_text("utf-8").split("\n")
    assert [openai.encode(text) for text in texts] == [[int(id) for id in line.split()] for line in lines]


@given(text=TEXTS)
@example(text="IT'STOP")
def test_any_text_is_encoded_as_by_hugging_face(openai, openai_by_hugging_face, text):
    assert openai.encode(text) == openai_by_hugging_face.encode(text).ids


@given(parts=st.lists(TEXTS | st.just(END)))
def test_any_text_with_end_tokens_is_encoded_as_by_hugging_face(tiny, tiny_by_hugging_face, parts):
    text = "".join(parts)
    assert tiny.encode(text, special=True) == tiny_by_hugging_face.encode(text).ids


# --- the end token ---


def test_the_end_token_has_the_last_id(openai):
    assert (openai.end_id, openai.vocab_size) == (50256, 50257)


def test_the_end_token_decodes_to_its_name(openai):
    assert openai.decode([50256]) == END


def test_the_end_token_in_a_text_counts_only_when_asked_for(openai):
    assert openai.encode(f"{END}Hello world{END}", special=True) == [50256, 15496, 995, 50256]


# --- back to text ---


@given(text=TEXTS)
@example(text="\0")
def test_decoding_undoes_encoding(openai, text):
    assert openai.decode(openai.encode(text)) == text


# In OpenAI's vocabulary 你 is e4 bd a0 in UTF-8, cut in two: 19526 and 254.
@pytest.mark.parametrize(
    ("id", "content"), [(19526, b"\xe4\xbd"), (254, b"\xa0"), (995, b" world"), (50256, END.encode())]
)
def test_a_token_stands_for_its_bytes(openai, id, content):
    assert openai.bytes_of(id) == content


def test_the_bytes_of_all_tokens_together_are_the_text(openai):
    _, ids = VECTORS[3]
    assert b"".join(map(openai.bytes_of, ids)) == "你好，世界".encode()


@pytest.mark.parametrize(
    ("ids", "text"), [([19526], "\ufffd"), ([254], "\ufffd"), ([15496, 19526, 995], "Hello\ufffd world")]
)
def test_half_a_character_decodes_to_a_replacement(openai, ids, text):
    assert openai.decode(ids) == text


@pytest.mark.parametrize("id", [-1, 50257])
def test_an_unknown_id_is_refused_with_the_known_range(openai, id):
    with pytest.raises(RequestError, match=f"^token id {id} is not in the vocabulary, whose ids are 0 to 50256$"):
        openai.decode([15496, id])


# --- any length ---


@pytest.fixture(scope="module")
def spacious():
    """A vocabulary of white space in all orders, so that a cut in the wrong place gives other ids."""
    draws = random.Random(0)
    return ByteLevelBPE(read_vocabulary(learn_vocabulary(["".join(draws.choices(WHITE, k=20_000))], 2000), "spacious"))


@pytest.mark.slow
@given(text=TEXTS, characters=st.integers(1, 6))
@settings(max_examples=300)
def test_cutting_into_pieces_changes_nothing(spacious, text, characters):
    whole = spacious.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_level, "PIECE_CHARACTERS", characters)
        assert spacious.encode(text) == whole


LONG = {
    "one letter": lambda size: "a" * size,
    "spaces before a letter": lambda size: " " * (size - 1) + "a",
    "spaces between letters": lambda size: "a" + " " * (size - 2) + "a",
    "newlines": lambda size: "\n" * size,
}


@pytest.mark.slow
@pytest.mark.parametrize("text_of", LONG.values(), ids=LONG)
def test_twice_the_text_takes_at_most_four_times_as_long(openai, text_of):
    seconds = {}
    for size in (MEBIBYTE, 2 * MEBIBYTE):
        text = text_of(size)
        start = time.process_time()
        openai.encode(text)
        seconds[size] = time.process_time() - start
    # A tenth of a second of grace: on a busy machine small times waver.
    assert seconds[2 * MEBIBYTE] < 4 * seconds[MEBIBYTE] + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("text_of", LONG.values(), ids=LONG)
def test_a_megabyte_without_a_border_comes_back_whole(openai, text_of):
    text = text_of(MEBIBYTE)
    assert openai.decode(openai.encode(text)) == text


def test_spaces_longer_than_a_piece_are_encoded_as_by_hugging_face(openai, openai_by_hugging_face):
    text = "a" + " " * (byte_level.PIECE_CHARACTERS + 1000) + "a\n" * 10
    assert openai.encode(text) == openai_by_hugging_face.encode(text).ids
