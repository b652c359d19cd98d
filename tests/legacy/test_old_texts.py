"""Which files of a directory the old programs' texts are, and what becomes of them."""

import numpy as np
import pytest

from gpt2kit import open_checkpoint
from gpt2kit import simple as gpt2
from gpt2kit.data.encode import encode_to_shards
from gpt2kit.legacy.old_texts import npz_name, old_inputs, old_reading
from gpt2kit.tokenizer.open import open_tokenizer


@pytest.fixture
def texts(here):
    """A directory with two texts, of which one is called like a program, and with what is none."""
    place = here / "texts"
    (place / ".git").mkdir(parents=True)
    (place / "deeper").mkdir()
    for name in ("b.txt", "a.py", ".hidden", ".git/config"):
        (place / name).write_text(f"This is {name}.", encoding="utf-8")
    (place / "empty.txt").touch()
    return place


def test_of_a_directory_all_files_but_hidden_and_empty_ones_are_read_by_name(texts):
    assert old_inputs("texts") == ["texts/a.py", "texts/b.txt"]


def test_so_are_those_of_the_directories_in_it(texts):
    (texts / "deeper" / "c.TXT").write_text("more", encoding="utf-8")
    assert old_inputs("texts") == ["texts/a.py", "texts/b.txt", "texts/deeper/c.TXT"]


@pytest.mark.parametrize("place", ["texts/a.py", "texts/*.txt", "texts/empty.txt", "texts/.hidden", "missing.txt"])
def test_what_is_no_directory_stands_for_itself(texts, place):
    assert old_inputs(place) == [place]


def test_a_directory_without_texts_stands_for_itself_so_that_it_is_named(here):
    (here / "nothing").mkdir()
    assert old_inputs("nothing") == ["nothing"]


def test_what_gpt2_encode_wrote_is_taken_whole(here, text, have):
    tokenizer = open_tokenizer(open_checkpoint(have("124M")).tokenizer_files, "")
    encode_to_shards([text], tokenizer, here / "encoded")
    assert old_inputs("encoded") == ["encoded"]


@pytest.mark.parametrize(("combine", "joined_to"), [(50_000, 50_000), (1, 1), (0, 1), (-5, 1)])
def test_texts_are_joined_to_a_length_and_below_1_none_is(combine, joined_to):
    assert old_reading(combine).combine == joined_to


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_a_name_has_numpys_ending(name):
    assert npz_name(name) == "out.npz"


# --- from the file to the tokens ---


@pytest.mark.parametrize(
    ("combine", "pieces"),
    [
        (50_000, ["This is a.py.<|endoftext|>This is b.txt.<|endoftext|>"]),
        (1, ["This is a.py.", "This is b.txt."]),
        (14, ["This is a.py.<|endoftext|>This is b.txt."]),
    ],
    ids=["shorter than a piece", "each a piece", "a piece of two"],
)
def test_a_directory_is_encoded_as_one_text_after_the_other(texts, here, have, combine, pieces):
    """nshepperd's load_dataset: a file is put behind what is there; what is shorter than a piece then, gets an end."""
    tokenizer = open_tokenizer(open_checkpoint(have("124M")).tokenizer_files, "")
    gpt2.encode_dataset("texts", combine=combine)
    with np.load(here / "text_encoded.npz") as stored:
        assert [tokenizer.decode(stored[name].tolist()) for name in stored.files] == pieces


def test_a_csv_can_be_encoded_onto_itself(here):
    (here / "rows.csv").write_text('text,more\n"Hi, she said.",x\nBye.,y\n', encoding="utf-8")
    gpt2.encode_csv("rows.csv", out_path="rows.csv")
    written = "<|startoftext|>Hi, she said.<|endoftext|>\n<|startoftext|>Bye.<|endoftext|>\n"
    assert (here / "rows.csv").read_text("utf-8") == written
