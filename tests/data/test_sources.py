import gzip
import os
from pathlib import Path

import pytest

from gpt2kit.data.shards import manifest_bytes
from gpt2kit.data.sources import find_sources
from gpt2kit.errors import DataError


def places(*inputs):
    return [source.path.as_posix() for source in find_sources(inputs)]


def write_shards(write, place):
    counts = {"tokens": 0, "documents": 0, "text_bytes": 0, "vocab_size": 10, "end_id": 0}
    write(f"{place}/manifest.json", manifest_bytes(**counts, tokenizer_sha256="", shards=[], recipe={}))
    write(f"{place}/ends.bin", b"")


def test_a_directory_is_its_texts_at_any_depth_in_order_of_name(write):
    for name in ("d/z.txt", "d/b/c.md", "d/a.jsonl", "d/e.csv.gz", "d/f.txt.zst", "d/g.parquet", "d/h.npz"):
        write(name, b"text")
    for name in ("d/picture.png", "d/noise.json", "d/archive.gz", "d/x.npz.gz", "d/x.parquet.zst"):
        write(name, b"no text")
    assert places("d") == ["d/a.jsonl", "d/b/c.md", "d/e.csv.gz", "d/f.txt.zst", "d/g.parquet", "d/h.npz", "d/z.txt"]


@pytest.mark.parametrize(
    ("name", "kind", "compression"),
    [
        *(("a.txt", "text", ""), ("a.md", "text", ""), ("a.jsonl", "jsonl", ""), ("a.ndjson", "jsonl", "")),
        *(("a.csv", "csv", ""), ("a.parquet", "parquet", ""), ("a.npz", "npz", ""), ("a", "text", "")),
        *(("a.log", "text", ""), ("a.log.gz", "text", ".gz"), ("a.jsonl.zst", "jsonl", ".zst")),
    ],
)
def test_a_file_named_by_hand_may_have_any_suffix(write, name, kind, compression):
    (source,) = find_sources([write(name, b"text")])
    assert (source.kind, source.compression, source.named) == (kind, compression, True)


def test_a_glob_is_every_file_it_matches_in_order_of_name(write):
    for name in ("b1.txt", "a1.txt", "a2.log", "a3.txt/inside.txt"):
        write(name, b"text")
    assert places("a*") == ["a1.txt", "a2.log"]


def test_a_glob_may_go_any_depth(write):
    for name in ("x/a.txt", "x/y/b.txt"):
        write(name, b"text")
    assert places("x/**/*.txt") == ["x/a.txt", "x/y/b.txt"]


def test_inputs_are_read_in_the_order_given_and_as_often(write):
    for name in ("a.txt", "b.txt"):
        write(name, b"text")
    assert places("b.txt", Path("a.txt"), "b.txt") == ["b.txt", "a.txt", "b.txt"]


def test_a_name_with_pattern_characters_is_a_name_first(write):
    write("a[1].txt", b"text")
    assert places("a[1].txt") == ["a[1].txt"]


def test_a_directory_of_shards_is_one_source_wherever_it_lies(write):
    write_shards(write, "d/made")
    write("d/made/notes.txt", b"about it")
    write("d/a.txt", b"text")
    assert places("d/made") == ["d/made"]
    assert places("d") == ["d/a.txt", "d/made"]
    assert places("d/m*") == ["d/made"]


def test_what_is_hidden_in_a_directory_is_left_out(write):
    for name in (".d/a.txt", ".d/.b.txt", ".d/.git/c.txt"):
        write(name, b"text")
    assert places(".d") == [".d/a.txt"]
    assert places(".d/.b.txt") == [".d/.b.txt"]


def test_what_is_made_of_a_directory_may_lie_in_it(write):
    write("d/a.txt", b"text")
    write("d/made.npz", b"ids")
    write_shards(write, "d/made")
    assert [str(source) for source in find_sources(["d"], leave_out=Path("d/made"))] == ["d/a.txt", "d/made.npz"]
    assert [str(source) for source in find_sources(["d"], leave_out=Path("d/made.npz"))] == ["d/a.txt", "d/made"]
    assert [str(source) for source in find_sources(["d/made"], leave_out=Path("d/made"))] == ["d/made"]


def test_sizes_and_times_tell_whether_a_source_has_changed(write):
    path = write("a.txt", b"text")
    os.utime(path, ns=(0, 123))
    (source,) = find_sources(["a.txt"])
    assert (source.size_bytes, source.modified_ns) == (4, 123)


def test_a_compressed_file_is_as_large_as_on_disk(write):
    path = write("a.txt.gz", gzip.compress(b"a" * 100_000))
    assert find_sources([path])[0].size_bytes == path.stat().st_size


def test_standard_input_can_be_read_once(here):
    (source,) = find_sources(["-"])
    assert (str(source), source.can_be_read_again) == ("standard input", False)
    with pytest.raises(DataError, match="only once"):
        find_sources(["-", "-"])


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ([], "no text was named"),
        (["nowhere.txt"], r"^nowhere\.txt: no such file or directory"),
        (["*.txt"], r"^\*\.txt: no such file or directory, and no file matches"),
        (["empty"], r"^empty: no text in this directory; looked for \.txt, .*\.parquet"),
    ],
)
def test_what_names_no_text_is_refused(here, inputs, problem):
    (here / "empty").mkdir()
    with pytest.raises(DataError, match=problem):
        find_sources(inputs)
