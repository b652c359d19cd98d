import random
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.errors import RequestError
from gpt2kit.generate.banned_words import BannedWords, TokenTexts
from gpt2kit.generate.sampling import RowState, choose
from gpt2kit.tokenizer.open import open_tokenizer

END = 0


class Fragments:
    """A tokenizer whose token n is fragment n; None has no text, token 0 is the end."""

    end_id = END

    def __init__(self, fragments):
        self.fragments = fragments
        self.vocab_size = len(fragments)
        self.ids = [id for id, text in enumerate(fragments) if text is not None]

    def bytes_of(self, token_id):
        if token_id >= len(self.fragments) or self.fragments[token_id] is None:
            raise RequestError(f"no text for {token_id}")
        return self.fragments[token_id]


PIECES = Fragments([b"<end>", b"a", b"b", b"ab", b"ba", b" a", None, b"bab", b" ", b"\xe4", b"\xb8\xad", b"c", b"\xb8"])


def banned(words, ids, tokenizer=PIECES):
    return set(BannedWords(TokenTexts(tokenizer), words)(ids).tolist())


def by_trying(words, ids, tokenizer=PIECES):
    """Put every token behind the text and count how often the words stand in it, overlapping ones included."""

    def text_of(token_id):
        try:
            return tokenizer.bytes_of(token_id)
        except RequestError:
            return b""

    def found(content):
        return sum(content[at:].startswith(word.encode()) for word in words for at in range(len(content)))

    last_end = max((at + 1 for at, id in enumerate(ids) if id == END), default=0)
    text = b"".join(map(text_of, ids[last_end:]))
    others = (id for id in range(tokenizer.vocab_size) if id != END)
    return {id for id in others if found(text + text_of(id)) > found(text)}


WORDS = st.lists(st.text("ab 中é", min_size=1, max_size=5), max_size=4)
IDS = st.lists(st.integers(0, len(PIECES.fragments) + 2), max_size=12)  # two ids beyond the vocabulary


@pytest.mark.slow
@given(WORDS, IDS)
@example(["aba", "ab"], [1])
@example(["中"], [9, 12])
@example(["ab" * 20, "b" + "ab" * 20, "ab" * 19 + "c"], [7, 1, 2] * 30)  # longer by far than any token
@example([" " * 9, " " * 7], [8] * 8)
def test_exactly_those_ids_are_banned_that_would_make_one_more_word(words, ids):
    assert banned(words, ids) == by_trying(words, ids)


@pytest.mark.parametrize(
    ("words", "ids", "expected"),
    [
        (["ab"], [], {3, 7}),
        (["ab"], [1], {2, 3, 4, 7}),
        ([" a"], [], {5}),
        ([" a"], [8], {1, 3, 5}),
        (["中"], [9], {10}),
        (["中"], [9, 12], set()),
        ([], [1, 2], set()),
    ],
    ids=str,
)
def test_the_ids_that_hold_a_word_or_the_rest_of_one_are_banned(words, ids, expected):
    assert banned(words, ids) == expected


def test_a_blank_in_front_spares_longer_words(tokenizer):
    words = BannedWords(TokenTexts(tokenizer), [" at"])
    for text, free in [("the c", True), ("the ", False)]:
        last = tokenizer.encode("t")[0]
        assert (last in words(tokenizer.encode(text + "a"))) != free


def test_upper_and_lower_case_are_different_words():
    case = Fragments([b"<end>", b"cat", b"Cat", b"CAT"])
    assert banned(["cat"], [], case) == {1}


def test_a_word_that_the_prompt_ends_in_the_middle_of_is_not_completed(tokenizer):
    words = BannedWords(TokenTexts(tokenizer), ["dog"])
    assert tokenizer.encode("g")[0] in words(tokenizer.encode("the do"))
    assert tokenizer.encode("g")[0] not in words(tokenizer.encode("the d"))


def test_a_prompt_may_hold_a_word_and_goes_on(tokenizer):
    words = BannedWords(TokenTexts(tokenizer), ["dog"])
    assert set(words(tokenizer.encode("the dog")).tolist()) == set(words([]).tolist())


def test_the_end_token_is_never_banned_and_no_word_reaches_across_it():
    assert END not in banned(["end", "<"], [1])
    assert banned(["ab"], [1, END]) == banned(["ab"], [])


def test_ids_without_text_do_not_come_between():
    assert banned(["ab"], [1, 6, 99]) == banned(["ab"], [1])


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_the_ids_may_be_any_sequence(kind):
    assert banned(["ab"], kind([2, 1])) == {2, 3, 4, 7}


BANNED = ["the", " cat", "at on", "上霜", "🙂", "fog; ", "e"]


@pytest.mark.parametrize("seed", range(8))
def test_no_text_ever_holds_a_banned_word(tokenizer, seed):
    words, ids = BannedWords(TokenTexts(tokenizer), BANNED), tokenizer.encode("th")
    logits_V = np.zeros(tokenizer.vocab_size, np.float32)
    logits_V[tokenizer.encode("the cat sat on the mat. 床前明月光,疑是地上霜。 🙂🙃 fog; ")] = 4  # what completes words
    for _ in range(150):
        state = RowState(SamplingConfig(seed=seed), ids, 1, banned=words(ids))
        ids.append(int(choose(logits_V[None], [state]).ids_R[0]))
    text = tokenizer.decode([id for id in ids if id != tokenizer.end_id])
    assert [word for word in BANNED if word in text] == []
    assert "at" in text, "only the words themselves are gone"


@pytest.fixture(scope="module")
def full_vocabulary(shared):
    place = shared / "fixtures" / "openai-fullvocab"
    return open_tokenizer({name: (place / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}, str(place))


REAL_WORDS = [
    "fox",
    " jump",
    "lazy dog",
    "é",
    "月光",
    "🙂",
    "... ",
    "\n\n",
    "ing ",
    "Mr",
    "of the ",
    "ten words banned",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["a brown fo", "it will j", "of th", "of a lazy do", "one 月", "two \n", "ten words bann", "go.."]
)
def test_with_gpt2s_vocabulary_the_bans_are_those_of_trying_every_token(full_vocabulary, text):
    tokens = {id: full_vocabulary.bytes_of(id) for id in range(full_vocabulary.vocab_size)}
    del tokens[full_vocabulary.end_id]
    words = [word.encode() for word in REAL_WORDS]
    expected = {id for id, token in tokens.items() if any(word in text.encode() + token for word in words)}
    assert banned(REAL_WORDS, full_vocabulary.encode(text), full_vocabulary) == expected


@pytest.mark.slow
def test_tens_of_words_are_ready_within_a_second_and_a_call_costs_little(full_vocabulary):
    ids = full_vocabulary.encode("a text of some length, which ends with one of the ")
    some = [full_vocabulary.decode([id]).strip() or "x" for id in range(2000, 50_000, 1000)]
    begun = time.perf_counter()
    words = BannedWords(TokenTexts(full_vocabulary), [*some, *REAL_WORDS])
    assert time.perf_counter() - begun < 1
    begun = time.perf_counter()
    for _ in range(100):
        words(ids)
    assert (time.perf_counter() - begun) / 100 < 0.001


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["".join(random.Random(n).choices("the cat 月光", k=990)) for n in range(1000)],
        [" " * n for n in range(1, 1000)],
    ],
    ids=["texts", "blanks"],
)
def test_a_thousand_long_words_take_little_time_and_memory(full_vocabulary, words):
    ids = full_vocabulary.encode("the cat" + " " * 1100)
    tracemalloc.start()
    bans = BannedWords(TokenTexts(full_vocabulary), words)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100e6
    begun = time.process_time()
    BannedWords(TokenTexts(full_vocabulary), words)
    assert time.process_time() - begun < 2
    begun = time.process_time()
    for _ in range(10):
        bans(ids)
    assert (time.process_time() - begun) / 10 < 0.1
