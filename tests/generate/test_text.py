import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2kit.generate.text import TextStream

# 1, 2, 3 and 4 bytes a character, and an emoji of several characters.
CHARACTERS = "aé中🙂"
SPLITS = range(2 ** (len(CHARACTERS.encode()) - 1))


class Fragments:
    """A tokenizer whose token n is fragment n."""

    end_id = 0

    def __init__(self, fragments):
        self.fragments = fragments
        self.vocab_size = len(fragments)

    def encode(self, text, *, special=False):
        raise NotImplementedError

    def decode(self, ids):
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def bytes_of(self, token_id):
        return self.fragments[token_id]


def pieces_of(fragments, stop=(), **ends):
    """What comes out after every fragment, and in the end; and whether a stop string was found."""
    stream = TextStream(Fragments(fragments), stop, **ends)
    return [*map(stream.push, range(len(fragments))), stream.finish()], stream.stopped


def cut(content, borders):
    """`content` in parts: bit n of `borders` cuts after byte n."""
    places = [0, *(n + 1 for n in range(len(content) - 1) if borders >> n & 1), len(content)]
    return [content[begin:end] for begin, end in pairwise(places)]


def so_far(fragments, count):
    """The whole characters among the first fragments."""
    return b"".join(fragments[:count]).decode("utf-8", errors="ignore")


def ends_in_half_a_character(content):
    """Whether more bytes could make a character of the last one, two or three."""
    return any(reason_against(content[-count:]) == "unexpected end of data" for count in (1, 2, 3))


def reason_against(content):
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason if error.start == 0 else None


# --- characters ---


def test_however_tokens_cut_characters_every_piece_holds_whole_ones():
    for fragments in (cut(CHARACTERS.encode(), borders) for borders in SPLITS):
        pieces, _ = pieces_of(fragments)
        shown = ["".join(pieces[: count + 1]) for count in range(len(pieces))]
        assert shown == [*(so_far(fragments, count + 1) for count in range(len(fragments))), CHARACTERS]


ALONE = ["a", "é", "中", "🙂", "\x7f", "\u0080", "\u07ff", "\u0800", "\uffff", "\U00010000", "\U0010ffff"]


@pytest.mark.parametrize("character", ALONE, ids=ascii)
def test_a_character_comes_with_its_last_byte_however_it_is_cut(character):
    content = character.encode()
    for fragments in (cut(content, borders) for borders in range(2 ** (len(content) - 1))):
        assert pieces_of(fragments)[0] == [*[""] * (len(fragments) - 1), character, ""]


JOINED = "👩🏽\u200d🚀🏳\ufe0f\u200d🌈🇨🇳1\ufe0f\u20e3e\u0301"  # skin tone, joiners, variants, a flag, an accent


@given(st.integers(0, 2 ** (len(JOINED.encode()) - 1) - 1))
def test_joined_emoji_come_whole_however_tokens_cut_them(borders):
    fragments = cut(JOINED.encode(), borders)
    pieces, _ = pieces_of(fragments)
    assert ["".join(pieces[: count + 1]) for count in range(len(fragments))] == [
        so_far(fragments, count + 1) for count in range(len(fragments))
    ]


def test_a_family_of_emoji_may_come_apart_but_not_its_characters():
    family = "👨\u200d👩\u200d👧"
    pieces, _ = pieces_of([bytes([byte]) for byte in family.encode()])
    assert [piece for piece in pieces if piece] == list(family)


PARTS = st.lists(st.binary(min_size=1, max_size=5), max_size=8)


@given(PARTS)
@example([b"a\xed", b"\xa0"])  # of half of a surrogate Python waits for the third byte, though none makes it text
def test_the_pieces_joined_are_the_whole_decode_whatever_the_bytes(fragments):
    pieces, _ = pieces_of(fragments)
    whole = b"".join(fragments)
    marks = 2 if re.search(rb"\xed[\xa0-\xbf]\Z", whole) else int(ends_in_half_a_character(whole))
    assert "".join(pieces) == whole.decode("utf-8", errors="replace").removesuffix("\ufffd" * marks)


@given(st.text(max_size=12), st.integers(min_value=0))
def test_whole_text_never_shows_a_replacement_character(text, borders):
    text = text.replace("\ufffd", "")
    pieces, _ = pieces_of(cut(text.encode(), borders))
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == text


BROKEN = b"a\xffb\xe4\xb8c\xf0\x9f\x99\xc3\xa9\xed\xa0\x80\xc0\xaf\x80z\xf4\x90\x80\x80\xe4"


def test_invalid_bytes_give_the_same_text_however_tokens_cut_them():
    for borders in range(0, 2 ** (len(BROKEN) - 1), 4093):
        pieces, _ = pieces_of(cut(BROKEN, borders))
        assert "".join(pieces) == BROKEN[:-1].decode("utf-8", errors="replace")


def test_a_byte_that_starts_nothing_is_replaced():
    assert "".join(pieces_of([b"a", b"\xff", b"b"])[0]) == "a\ufffdb"


def test_a_character_cut_by_the_end_is_not_shown():
    assert pieces_of([b"a", "中".encode()[:2]])[0] == ["a", "", ""]


def test_a_learnt_vocabulary_streams_chinese_and_emoji_whole(tokenizer):
    text = "疑是地上霜 🙂 the fog 🐈"
    stream = TextStream(tokenizer)
    ids = tokenizer.encode(text)
    pieces = [stream.push(id) for id in ids]
    assert len(ids) > len(text) / 2, "the text must be cut finely for this to say something"
    assert "\ufffd" not in "".join(pieces)
    assert "".join([*pieces, stream.finish()]) == text


# --- stop strings ---


def test_a_stop_string_across_tokens_is_never_shown():
    assert pieces_of([b"one EN", b"D", b" two"], ["END"]) == (["one ", "", "", ""], True)


def test_what_only_looked_like_a_stop_string_comes_later():
    assert pieces_of([b"one EN", b"TER"], ["END"]) == (["one ", "ENTER", ""], False)


def test_what_still_looks_like_a_stop_string_comes_in_the_end():
    assert pieces_of([b"one EN"], ["END"]) == (["one ", "EN"], False)


def test_a_stop_string_that_overlaps_itself_is_found():
    assert pieces_of([b"a", b"a", b"b"], ["ab"]) == (["", "a", "", ""], True)


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("x ab中c y", ["ab中c"], "x "),
        ("aab中c y", ["ab中"], "a"),
        ("ababac", ["abac"], "ab"),
        ("the END", ["END", "EN"], "the "),
        ("the ENT ER", ["END", "ENTER", "ER"], "the ENT "),
        ("好的。\n\n下", ["\n\n", "。"], "好的"),
        ("a🙂b", ["🙂"], "a"),
    ],
)
def test_a_stop_string_is_found_however_tokens_cut_it(text, stop, shown):
    for borders in range(2 ** (len(text.encode()) - 1)):
        pieces, stopped = pieces_of(cut(text.encode(), borders), stop)
        assert ("".join(pieces), stopped) == (shown, True)


def test_a_stop_string_may_lie_inside_one_token_of_many_characters():
    assert pieces_of(["床前明月光".encode(), b"x"], ["明月"]) == (["床前", "", ""], True)


@pytest.mark.parametrize("stop", [["ab", "abc"], ["abc", "ab"]])
def test_of_a_stop_string_and_its_beginning_either_stops_before_both(stop):
    assert pieces_of([b"xab", b"cd"], stop) == (["x", "", ""], True)
    assert pieces_of([b"xabcd"], stop) == (["x", ""], True)


@pytest.mark.parametrize("stop", [["abcd", "bc"], ["bc", "abcd"]])
def test_of_overlapping_stop_strings_the_one_that_is_whole_first_counts(stop):
    assert pieces_of([b"a", b"bc", b"d"], stop) == (["", "a", "", ""], True)
    assert pieces_of([b"a", b"bcd"], stop) == (["", "", ""], True)


@pytest.mark.parametrize("stop", [["two", "one"], ["one", "two"]])
def test_of_several_stop_strings_the_earliest_in_the_text_counts(stop):
    assert pieces_of([b"zero one two"], stop) == (["zero ", ""], True)


def test_a_stop_string_may_be_chinese_and_cut_inside_a_character():
    content = "床前明月光".encode()
    pieces, stopped = pieces_of([content[:7], content[7:10], content[10:]], ["明月"])
    assert ("".join(pieces), stopped) == ("床前", True)


def test_a_stop_string_can_be_kept_and_nothing_behind_it():
    assert pieces_of([b"one EN", b"D two", b"x"], ["END"], keep_stop=True) == (["one ", "END", "", ""], True)
    assert pieces_of([b"zero one two"], ["two", "one"], keep_stop=True) == (["zero one", ""], True)


@pytest.mark.parametrize("stop", [["ab", "abc"], ["abc", "ab"]])
@pytest.mark.parametrize("fragments", [[b"xabcd"], [b"xab", b"cd"], [b"x", b"a", b"b", b"c"]])
def test_of_stop_strings_that_begin_together_the_shortest_is_kept(stop, fragments):
    pieces, stopped = pieces_of(fragments, stop, keep_stop=True)
    assert ("".join(pieces), stopped) == ("xab", True)


@pytest.mark.parametrize("stop", [["abcd", "bc"], ["bc", "abcd"]])
def test_of_overlapping_stop_strings_the_one_is_kept_that_the_text_would_stop_before(stop):
    assert "".join(pieces_of([b"a", b"bc", b"d"], stop, keep_stop=True)[0]) == "abc"
    assert "".join(pieces_of([b"a", b"bcd"], stop, keep_stop=True)[0]) == "abcd"


def test_a_sentence_that_ends_where_a_stop_string_begins_ends_the_text():
    pieces, stopped = pieces_of([b"It rains.", b"\n"], ["\n"], until_sentence=True, keep_stop=True)
    assert ("".join(pieces), stopped) == ("It rains.", True)


def test_without_stop_strings_nothing_stops():
    assert pieces_of([b"a", b"b"]) == (["a", "b", ""], False)


TEXTS = st.text("ab中", max_size=12)
STOPS = st.lists(st.text("ab中", min_size=1, max_size=4), max_size=3)


def plainly(fragments, stop):
    """Look at the whole text after every token; at the first find, cut before the earliest."""
    for count in range(1, len(fragments) + 1):
        text = so_far(fragments, count)
        if found := [text.index(string) for string in stop if string in text]:
            return text[: min(found)], True
    return so_far(fragments, len(fragments)), False


@settings(max_examples=300)
@given(TEXTS, st.integers(min_value=0), STOPS)
def test_stopping_is_as_if_the_whole_text_were_searched_after_every_token(text, borders, stop):
    fragments = cut(text.encode(), borders)
    pieces, stopped = pieces_of(fragments, stop)
    assert ("".join(pieces), stopped) == plainly(fragments, stop)


@given(TEXTS, st.integers(min_value=0), STOPS)
def test_no_more_is_held_back_than_a_stop_string_may_begin_with(text, borders, stop):
    fragments = cut(text.encode(), borders)
    pieces, stopped = pieces_of(fragments, stop)
    longest = max(map(len, stop), default=1) - 1
    for count in range(len(fragments) + 1):
        held = so_far(fragments, count)[len("".join(pieces[:count])) :]
        assert stopped or len(held) <= longest
