"""Where a text stops: after its first sentence, and never within its first tokens."""

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2kit.generate.text import TextStream


class Fragments:
    """A tokenizer whose token n is fragment n."""

    end_id = 0

    def __init__(self, fragments):
        self.fragments = fragments
        self.vocab_size = len(fragments)

    def bytes_of(self, token_id):
        return self.fragments[token_id]


def pieces_of(fragments, stop=(), **ends):
    """What comes out after every fragment, and in the end; and whether an end was found."""
    stream = TextStream(Fragments(fragments), stop, **ends)
    return [*map(stream.push, range(len(fragments))), stream.finish()], stream.stopped


def cut(content, borders):
    """`content` in parts: bit n of `borders` cuts after byte n."""
    places = [0, *(n + 1 for n in range(len(content) - 1) if borders >> n & 1), len(content)]
    return [content[begin:end] for begin, end in pairwise(places)]


def byte_by_byte(text):
    return [bytes([byte]) for byte in text.encode()]


def first_sentence(text):
    pieces, stopped = pieces_of(byte_by_byte(text), until_sentence=True)
    return "".join(pieces) if stopped else None


# --- what a sentence is ---


@pytest.mark.parametrize(
    ("sentence", "rest"),
    [
        ("It rains.", " Then"),
        ("It rains!", " Then"),
        ("It rains?", " Then"),
        ("It rains...", " Then"),
        ("It rains\u2026", " Then"),
        ("What?!", " Then"),
        ("It rains.", "\nThen"),
        ("It rains.", "\n\nThen"),
        ("It rains.", "\u3000Then"),
        ('"It rains."', " he said"),
        ("'It rains!'", " he said"),
        ("“It rains.”", " he said"),
        ("(It rains.)", " Then"),
        ('"(It rains.)"', " Then"),
        ("«Il pleut.»", " Puis"),
        ("„Es regnet.“", " Dann"),
        ("a title\n\nIt rains.", " Then"),
        (" It rains.", " Then"),
        ("\n\nIt rains.", " Then"),
        ("Pi is 3.14.", " Then"),
        ("Mr. J. R. Smith and Mrs. Smith met Dr. No vs. St. Nicholas, e.g. here.", " Then"),
        ("At 5 p.m. apples, i.e. fruit etc. and so on, were sold.", " Then"),
        ("example.com is down.", " Then"),
        ("The tram.", " Then"),  # ends in "am."
        ("下雨了。", "他"),
        ("下雨了！", "他"),
        ("下雨了？", "他"),
        ("下雨了。", " 他"),
        ("下雨了？！", "他"),
        ("「下雨了。」", "他"),
        ("『下雨了。』", "他"),
        ("“下雨了。”", "他"),
        ("（下雨了。）", "他"),
        ("《下雨了。》", "他"),
        ("他說：「下雨了。」", "“"),
        ("「『下雨了。』」", "他"),
        ("3.14。", "他"),
    ],
)
def test_a_text_stops_after_its_first_sentence_without_the_space_behind_it(sentence, rest):
    assert first_sentence(sentence + rest) == sentence
    assert first_sentence(sentence) is None, "the next character decides"


@pytest.mark.parametrize(
    "text",
    [
        "3.14 and 2.72",
        "J. Smith",
        "É. Zola",
        "U.S. Army",
        *(f"{title}. Smith" for title in ("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Gen", "Capt", "Rev")),
        *(f"this {short} that" for short in ("vs.", "e.g.", "i.e.", "etc.", "cf.", "a.m.")),
        "example.com",
        "one.two three",
        "a line\nand a line\n\nand a line",
        "he said:",
        "下雨了，他",
        "",
        " ",
    ],
)
def test_what_is_no_sentence_goes_on(text):
    assert first_sentence(text + " and") is None


def test_white_space_behind_a_prompt_that_ends_a_sentence_is_no_end():
    assert first_sentence(" It rains") is None
    assert first_sentence("\n") is None
    assert first_sentence('" It rains. Then') == '" It rains.'


def test_a_mark_at_the_very_beginning_ends_the_sentence_of_the_prompt():
    assert first_sentence(". Then") == "."


def test_without_until_sentence_a_text_goes_on():
    assert pieces_of([b"It rains. Then. "]) == (["It rains. Then. ", ""], False)


def test_nothing_is_held_back_for_the_end_of_a_sentence():
    fragments = [b"It", b" rains", b".", b'"', b" Then", b" more"]
    pieces, stopped = pieces_of(fragments, until_sentence=True)
    assert (pieces, stopped) == (["It", " rains", ".", '"', "", "", ""], True)


FIRST, SECOND = "Mr. J. Fox rained?", " 3.14 「好。」"


@given(st.integers(min_value=0))
def test_tokens_may_cut_a_sentence_anywhere(borders):
    first = cut((FIRST + SECOND + "他").encode(), borders)
    assert "".join(pieces_of(first, until_sentence=True)[0]) == FIRST
    second = [FIRST.encode() + b" ", *cut((SECOND + "他").encode(), borders)]
    assert "".join(pieces_of(second, until_sentence=True, min_tokens=1)[0]) == f"{FIRST} {SECOND}"


# --- against a plain program ---

SHORT = ("Mr", "Dr", "vs", "etc")
LATIN, LATIN_CLOSING, CJK, CJK_CLOSING = ".!?…", "\"')]}’”“»", "。！？", "」』”’）》"


def begins_a_word(text, at):
    return at == 0 or not (text[at - 1].isalnum() or text[at - 1] == "_")


def is_short(text, dot):
    """Whether the dot at this place stands behind a single capital or an abbreviation."""
    starts = [dot - 1] if dot and "A" <= text[dot - 1] <= "Z" else []
    starts += [dot - len(word) for word in SHORT if text[:dot].endswith(word)]
    return any(begins_a_word(text, start) for start in starts)


def sentence_ends(text):
    ends = []
    for marks, closing, decides in [(LATIN, LATIN_CLOSING, str.isspace), (CJK, CJK_CLOSING, lambda _: True)]:
        for at, character in enumerate(text):
            if character not in marks or (character == "." and is_short(text, at)):
                continue
            end = at + 1
            while end < len(text) and text[end] in closing:
                end += 1
            goes_on = end < len(text) and text[end] in marks + closing
            if end < len(text) and not goes_on and decides(text[end]):
                ends.append(end)
    return ends


def plainly(fragments, stop, until_sentence, min_tokens, keep_stop):
    """Look at the whole text after every token; stop at the first end found that is not within the first tokens."""
    uncut = len(b"".join(fragments[:min_tokens]).decode(errors="ignore"))
    for count in range(min_tokens + 1, len(fragments) + 1):
        text = b"".join(fragments[:count]).decode(errors="ignore")
        found = [(at, string) for string in stop for at in range(uncut, len(text)) if text.startswith(string, at)]
        found += [(at, "") for at in sentence_ends(text) if at >= uncut] if until_sentence else []
        if found:
            at, string = min(found)
            return text[:at] + (string if keep_stop else ""), True
    return b"".join(fragments).decode(errors="ignore"), False


PARTS = st.lists(st.sampled_from([*'ab中J。」.!?…"’ \n3_', "Mr", "etc", "...", ". ", "é", "🙂"]), max_size=14).map(
    "".join
)
STOPS = st.lists(st.text("ab. 中\n", min_size=1, max_size=3), max_size=2)


@pytest.mark.slow
@settings(max_examples=500)
@given(
    text=PARTS,
    borders=st.integers(min_value=0),
    stop=STOPS,
    ends=st.fixed_dictionaries(
        {"until_sentence": st.booleans(), "min_tokens": st.integers(0, 8), "keep_stop": st.booleans()}
    ),
)
@example("Mr. a. b", 2**20 - 1, [], {"until_sentence": True, "min_tokens": 0, "keep_stop": False})
@example("a. b. a", 2**20 - 1, ["b"], {"until_sentence": True, "min_tokens": 2, "keep_stop": False})
def test_ends_are_as_if_the_whole_text_were_searched_after_every_token(text, borders, stop, ends):
    fragments = cut(text.encode(), borders)
    pieces, stopped = pieces_of(fragments, stop, **ends)
    assert ("".join(pieces), stopped) == plainly(fragments, stop, **ends)


# --- the first tokens ---


def test_a_stop_string_within_the_first_tokens_does_not_count():
    assert pieces_of([b"a", b"END", b"b"], ["END"], min_tokens=2) == (["a", "END", "b", ""], False)


def test_a_stop_string_that_begins_in_the_first_tokens_does_not_count():
    assert pieces_of([b"a", b"EN", b"D", b"b"], ["END"], min_tokens=2) == (["a", "EN", "D", "b", ""], False)


def test_a_stop_string_that_begins_behind_the_first_tokens_counts():
    assert pieces_of([b"END", b"a", b"EN", b"D"], ["END"], min_tokens=2) == (["END", "a", "", "", ""], True)


def test_a_sentence_within_the_first_tokens_does_not_end_the_text():
    pieces, stopped = pieces_of([b"One. ", b"Two", b". ", b"Three. ", b"Four"], until_sentence=True, min_tokens=3)
    assert (pieces, stopped) == (["One. ", "Two", ". ", "Three.", "", ""], True)


def test_a_sentence_that_ends_with_the_first_tokens_counts():
    pieces, stopped = pieces_of([b"One", b".", b" Two. "], until_sentence=True, min_tokens=2)
    assert (pieces, stopped) == (["One", ".", "", ""], True)


def test_a_character_that_the_first_tokens_only_begin_is_not_theirs():
    first, rest = "中".encode()[:2], "中".encode()[2:]
    assert pieces_of([b"a", first, rest], ["中"], min_tokens=2) == (["a", "", "", ""], True)


def test_a_text_that_ends_within_its_first_tokens_is_whole():
    pieces, stopped = pieces_of([b"a. b", b"c. "], ["c"], until_sentence=True, min_tokens=5)
    assert (pieces, stopped) == (["a. b", "c. ", ""], False)


@pytest.mark.parametrize("mark", [".", "!", "\u3002"])
def test_endless_marks_take_no_endless_time(mark):
    stream = TextStream(Fragments([mark.encode() * 64, b" a"]), until_sentence=True, min_tokens=500)
    begun = time.process_time()
    for _ in range(1000):
        stream.push(0)
    stream.push(1)
    assert stream.stopped
    assert time.process_time() - begun < 2  # it was minutes
