import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.data.shards import Shards, is_shards, manifest_bytes, open_shards
from gpt2kit.errors import FormatError

IDS = [5, 6, 0, 7, 0, 8, 9, 0]  # three documents, in shards of 3, 4 and 1 ids


@pytest.fixture
def corpus(tmp_path):
    """A corpus written by hand, byte for byte as the layout in shards.py says."""
    manifest = {
        **{"format": "gpt2kit shards", "version": 1, "dtype": "uint16", "vocab_size": 10, "end_id": 0},
        **{"tokenizer_sha256": "ab", "tokens": 8, "documents": 3, "text_bytes": 20, "shards": [3, 4, 1], "recipe": {}},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for name, ids in (("00000.bin", IDS[:3]), ("00001.bin", IDS[3:7]), ("00002.bin", IDS[7:])):
        (tmp_path / name).write_bytes(b"".join(id.to_bytes(2, "little") for id in ids))
    (tmp_path / "ends.bin").write_bytes(b"".join(end.to_bytes(8, "little") for end in (3, 5, 8)))
    return tmp_path


def change(corpus, **changes):
    path = corpus / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


def test_a_corpus_tells_what_it_holds(corpus):
    shards = open_shards(corpus)
    assert (shards.total, shards.ends.tolist(), shards.vocab_size, shards.end_id) == (8, [3, 5, 8], 10, 0)
    assert (shards.tokenizer_sha256, shards.text_bytes) == ("ab", 20)


@given(positions=st.lists(st.integers(0, 7), min_size=1, max_size=20))
def test_ids_are_taken_across_shards(positions):
    parts = tuple(np.array(part, np.uint16) for part in (IDS[:3], IDS[3:7], IDS[7:]))
    shards = Shards(None, parts, np.array([3, 5, 8]), 8, 10, 0, "", 0, {})
    taken = shards.take(np.array(positions))
    assert taken.dtype == np.int64
    assert taken.tolist() == [IDS[position] for position in positions]


def test_ids_are_taken_in_the_shape_of_the_positions(corpus):
    shards = open_shards(corpus)
    assert shards.take(np.array([[0, 1, 2], [2, 3, 7]])).tolist() == [[5, 6, 0], [0, 7, 0]]
    assert shards.take(np.array([[5, 6]])).tolist() == [[8, 9]]
    assert shards.take(np.empty((0, 4), np.int64)).shape == (0, 4)


def test_an_id_outside_the_vocabulary_is_refused_when_taken(corpus):
    (corpus / "00002.bin").write_bytes(b"\x0a\x00")
    with pytest.raises(FormatError, match="holds the id 10; the vocabulary has only 10"):
        open_shards(corpus).take(np.arange(8))


def test_a_corpus_may_be_empty(tmp_path):
    counts = {"tokens": 0, "documents": 0, "text_bytes": 0, "vocab_size": 70000, "end_id": 0}
    (tmp_path / "manifest.json").write_bytes(manifest_bytes(**counts, tokenizer_sha256="", shards=[], recipe={}))
    (tmp_path / "ends.bin").touch()
    assert open_shards(tmp_path).total == 0


def test_shards_are_known_by_their_manifest(corpus, golden):
    assert is_shards(corpus)
    assert not is_shards(golden / "hf-safetensors")
    assert not is_shards(corpus / "00000.bin")
    (corpus / "manifest.json").write_text('{"short_name": "a web page"}', encoding="utf-8")
    assert not is_shards(corpus)


@pytest.mark.parametrize("name", ["00000.bin", "00001.bin", "00002.bin", "ends.bin"])
@pytest.mark.parametrize("change_by", [-1, 1])
def test_a_file_of_the_wrong_length_is_noticed(corpus, name, change_by):
    content = (corpus / name).read_bytes()
    (corpus / name).write_bytes(content[:change_by] if change_by < 0 else content + b"\0")
    with pytest.raises(FormatError, match=rf"{name}: found .* bytes, the manifest promises"):
        open_shards(corpus)


@pytest.mark.parametrize("name", ["manifest.json", "00001.bin", "ends.bin"])
def test_a_missing_file_is_named(corpus, name):
    (corpus / name).unlink()
    with pytest.raises(FormatError, match=rf"{name}: cannot be read"):
        open_shards(corpus)


@pytest.mark.parametrize("ends", [(5, 3, 8), (3, 5, 7), (-1, 5, 8), (3, 9, 8)])
def test_ends_must_rise_to_the_last_token(corpus, ends):
    (corpus / "ends.bin").write_bytes(np.array(ends, "<i8").tobytes())
    with pytest.raises(FormatError, match="do not rise"):
        open_shards(corpus)


@pytest.mark.parametrize(
    "lie",
    [
        *({"format": "other"}, {"version": 2}, {"dtype": "uint32"}, {"dtype": "object"}, {"tokens": 9}),
        *({"tokens": -8}, {"documents": 2}, {"documents": 2**70}, {"documents": "3"}, {"end_id": 10}),
        *({"vocab_size": 0}, {"vocab_size": True}, {"shards": [8]}, {"shards": [4, 4, 0]}, {"shards": "abc"}),
        *({"shards": [3, 4, 1.0]}, {"shards": ["../x", 8]}, {"tokenizer_sha256": None}, {"recipe": 1}),
        *({"text_bytes": None}, {"tokens": 2**61, "shards": [2**61]}),
    ],
    ids=str,
)
def test_a_manifest_that_lies_is_refused(corpus, lie):
    change(corpus, **lie)
    with pytest.raises(FormatError):
        open_shards(corpus)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"a":' * 100_000])
def test_a_manifest_that_is_no_object_is_refused(corpus, content):
    (corpus / "manifest.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"manifest\.json"):
        open_shards(corpus)
