import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.data import parcels
from gpt2kit.data.documents import Piece
from gpt2kit.data.parcels import Encoded, Texts, encode_texts, pack

END = "<|endoftext|>"
WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2028\u3000"
# Everything the pattern tells apart, and what only seems to be a border: an apostrophe, a letter of a later Unicode.
CHARACTERS = st.sampled_from(WHITE + "\u200b\x1c'stvelm7½aZé你、。!_🙂\U0001e4d0") | st.characters(
    exclude_categories=["Cs"]
)
TEXTS = st.text(CHARACTERS, max_size=30)
DOCUMENTS = st.lists(st.lists(TEXTS, min_size=1, max_size=4), max_size=6)


def pieces_of(documents):
    for document in documents:
        for number, text in enumerate(document, 1):
            yield Piece(text, number == len(document))


@pytest.mark.slow
@given(documents=DOCUMENTS, size=st.integers(1, 12), separator=st.sampled_from([END, "", "\n\n"]))
@settings(max_examples=300)
def test_ids_are_those_of_every_whole_document(tiny, documents, size, separator):
    """The judge encodes each document alone and whole; how it was cut, and into which parcels, must not show."""
    ids_behind = [tiny.end_id] if separator == END else tiny.encode(separator)
    expected, ends = [], []
    for document in documents:
        expected += [*tiny.encode("".join(document)), *ids_behind]
        ends.append(len(expected))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parcels, "PARCEL_CHARACTERS", size)
        packed = list(pack(pieces_of(documents), tiny.find_border))
    found, found_ends = [], []
    for parcel in packed:
        encoded = encode_texts(parcel, tiny, ids_behind)
        found_ends += (encoded.ends + len(found)).tolist()
        found += encoded.ids.tolist()
    assert (found, found_ends) == (expected, ends)


@pytest.mark.slow
@given(texts=st.lists(TEXTS | st.just(END) | st.just(f"a{END}b"), min_size=1, max_size=5))
def test_joined_texts_are_encoded_as_each_alone(openai, texts):
    expected = []
    for text in texts:
        expected += [*openai.encode(text), openai.end_id]
    assert openai.encode_joined(texts).tolist() == expected[:-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["word ", "床前明月光，", "0123456789abcdef", "QUJDREVGRw+/", "\n", "かな。"], ids=repr
)
def test_a_long_line_is_cut(openai, unit):
    text = unit * (700_000 // len(unit)) + "end"
    packed = list(pack([Piece(text, True)], openai.find_border))
    longest = max(len(part) for parcel in packed for part in parcel.texts)
    if unit != "\n":  # a run of white space is one stretch for the pattern; only its last is cut off
        assert longest < parcels.PARCEL_CHARACTERS + 100
    found = np.concatenate([encode_texts(parcel, openai, []).ids for parcel in packed])
    assert openai.decode(found.tolist()) == text


def test_short_documents_travel_together(tiny):
    packed = list(pack((Piece("ab", True) for _ in range(100_000)), tiny.find_border))
    assert 1 < len(packed) < 5
    assert all(len(parcel.texts) > 1000 for parcel in packed[:-1])


def test_ids_come_through_between_texts(tiny):
    ids = np.array([7, 8])
    stream = [Piece("a", True), Piece(ids, False), Piece(ids, True), Piece("b", True)]
    first, second, third, fourth = pack(stream, tiny.find_border)
    assert (first, fourth) == (Texts(("a", "")), Texts(("b", "")))
    assert isinstance(second, Encoded)
    assert (second.ids.tolist(), second.ends.tolist(), third.ends.tolist()) == ([7, 8], [], [2])
