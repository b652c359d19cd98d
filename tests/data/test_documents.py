import csv
import gzip
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.documents import decode_text, read_pieces, read_text, split_documents
from gpt2kit.data.sources import find_sources
from gpt2kit.errors import DataError, FormatError, MissingExtra

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def documents(*inputs, tokenizer=None, **options):
    """Every document whole, as text or as a list of ids."""
    whole, parts = [], []
    for piece in read_pieces(find_sources(inputs), ReadingConfig(**options), tokenizer):
        parts.append(piece.content)
        if piece.ends_document:
            whole.append("".join(parts) if isinstance(parts[0], str) else np.concatenate(parts).tolist())
            parts = []
    assert not parts, "the last piece ends a document"
    return whole


# --- plain text ---


def test_a_file_is_one_document_line_ends_as_they_are(write):
    write("a.txt", "\ufeff床前\r\n明月光\n\r")
    assert documents("a.txt") == ["床前\r\n明月光\n\r"]


def test_a_long_file_comes_in_pieces(write):
    write("a.txt", b"0123456789" * 100_000)
    pieces = list(read_pieces(find_sources(["a.txt"]), ReadingConfig()))
    assert len(pieces) > 3
    assert [piece.ends_document for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_documents_are_read_one_at_a_time(write):
    write("a.txt", b"a")
    write("b.txt", b"\xff")
    pieces = read_pieces(find_sources(["a.txt", "b.txt"]), ReadingConfig())
    assert next(pieces).content == "a"
    with pytest.raises(DataError, match=r"^b\.txt: not UTF-8"):
        next(pieces)


def test_a_text_can_be_cut_into_documents(write):
    write("a.txt", "one<|endoftext|>two\n<|endoftext|><|endoftext|>three")
    assert documents("a.txt", split_on="<|endoftext|>") == ["one", "two\n", "three"]


@given(text=st.text(st.sampled_from("aba|")), mark=st.sampled_from(["", "a", "ab", "aba", "||"]), cuts=st.data())
def test_cutting_a_stream_is_cutting_the_whole(text, mark, cuts):
    blocks, rest = [], text
    while rest:
        size = cuts.draw(st.integers(1, 4))
        blocks.append(rest[:size])
        rest = rest[size:]
    found = [""]
    for piece in split_documents(blocks, mark):
        found[-1] += piece.content
        found += [""] if piece.ends_document else []
    expected = [part for part in (text.split(mark) if mark else [text]) if part]
    assert found == [*expected, ""]


# --- JSON lines ---


@given(texts=st.lists(st.text(min_size=1), min_size=1))
def test_json_lines_are_read_as_json_reads_them(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    lines = [json.dumps({"id": 1, "text": text}, ensure_ascii=number % 2 == 0) for number, text in enumerate(texts)]
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    assert documents(path) == texts


def test_the_key_of_a_json_line_is_a_choice_and_blank_lines_are_none(write):
    write("a.jsonl", '\n{"body": "a"}\r\n  \n{"body": "", "n": 1}\n{"body": "b"}')
    assert documents("a.jsonl", field="body") == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": ', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["text"]', "a JSON list, expected an object"),
        ('{"body": 1, "title": 2}', "no key 'text'; found 'body', 'title'; name one: --field"),
        ("{}", "no key 'text'; found none"),
        ('{"text": 5}', "text is 5, expected a text"),
        ('{"text": null}', "text is None, expected a text"),
        ('{"text": "a\\ud83d"}', "half a character"),
    ],
    ids=["cut off", "deep", "list", "other keys", "no keys", "number", "null", "half a character"],
)
def test_a_bad_json_line_is_named(write, line, problem):
    write("a.jsonl", f'{{"text": "good"}}\n{line}\n')
    with pytest.raises(DataError, match=rf"^a\.jsonl, line 2: {problem}"):
        documents("a.jsonl")


def test_half_a_character_can_be_replaced(write):
    write("a.jsonl", '{"text": "a\\ud83d"}\n{"text": "\\ude00b"}\n{"text": "\\ud83d\\ude00"}')
    with pytest.warns(UserWarning, match="half characters in 2 lines"):
        assert documents("a.jsonl", invalid_utf8="replace") == ["a�", "�b", "😀"]
    with pytest.warns(UserWarning, match="half characters in 2 lines; what stood there is left out"):
        assert documents("a.jsonl", invalid_utf8="ignore") == ["a", "b", "😀"]


def test_every_kind_of_text_may_be_in_another_encoding(write):
    lines = {"a.txt": "床前", "b.jsonl": '{"text": "床前"}\n', "c.csv": "詩\n床前\n"}
    for encoding in ("gb18030", "utf-16"):
        for name, content in lines.items():
            write(name, content.encode(encoding))
            assert documents(name, encoding=encoding) == ["床前"]


# --- CSV ---

CELLS = st.text(st.sampled_from("ab,;\"' \r\n中"))
ROWS = st.lists(st.tuples(CELLS, CELLS), min_size=1)


@pytest.mark.slow
@given(rows=ROWS, column=st.integers(0, 1), line_end=st.sampled_from(["\r\n", "\n", "\r"]))
def test_csv_is_read_as_pythons_csv_wrote_it(tmp_path_factory, rows, column, line_end):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator=line_end, quoting=csv.QUOTE_ALL)
        writer.writerows([("first", "second"), *rows, ("end", "end")])
    expected = [row[column] for row in rows if row[column]]
    assert documents(path, column=["", "second"][column]) == [*expected, "end"]


def test_a_csv_field_may_be_long(write):
    write("a.csv", b'text\n"' + b"line\n" * 200_000 + b'"\n')
    assert documents("a.csv") == ["line\n" * 200_000]


@pytest.mark.parametrize(("column", "text"), [("", "a"), ("title", "a"), ("body", "b"), ("2", "b"), ("7", "c")])
def test_a_csv_column_is_found_by_name_or_number(write, column, text):
    write("a.csv", "title,body,7\na,b,c\n")
    assert documents("a.csv", column=column) == [text]


@pytest.mark.parametrize("column", ["3", "0", "Title", "-1"])
def test_a_missing_csv_column_is_named_with_those_there_are(write, column):
    write("a.csv", "title,body\na,b\n")
    with pytest.raises(DataError, match=rf"^a\.csv: no column '{column}'; found 'title', 'body'; .*--column"):
        documents("a.csv", column=column)


def test_a_short_csv_row_is_named(write):
    write("a.csv", 'title,body\n"a\nb",c\n\nd\n')
    with pytest.raises(DataError, match=r"^a\.csv, line 5: 1 columns, but the text is in column 2"):
        documents("a.csv", column="body")


@pytest.mark.slow
def test_a_quote_left_open_does_not_swallow_a_large_file(write):
    write("a.csv", b'text\n"' + b"line\n" * 4_000_000)
    with pytest.raises(DataError, match=r"^a\.csv, line \d+: not CSV: .*is a quote left open"):
        documents("a.csv")


# --- Parquet ---


@pytest.fixture
def table(here):
    """Write a Parquet file of one column, in small row groups."""

    def to(place, values, kind, name="text"):
        column = pyarrow.array(values, kind)
        parquet.write_table(pyarrow.table({"id": range(len(values)), name: column}), place, row_group_size=3)

    return to


@pytest.mark.parametrize(
    "kind",
    [pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())],
    ids=str,
)
def test_parquet_is_read_as_pyarrow_wrote_it(table, kind):
    table("a.parquet", ["床前", None, "", "b", "c" * 100_000, "d"], kind)
    assert documents("a.parquet") == ["床前", "b", "c" * 100_000, "d"]


@pytest.mark.parametrize("column", ["body", "2"])
def test_a_parquet_column_is_found_by_name_or_number(table, column):
    table("a.parquet", ["x"], pyarrow.string(), name="body")
    assert documents("a.parquet", column=column) == ["x"]


@pytest.mark.parametrize(
    ("column", "problem"),
    [("", "no column 'text'; found 'id', 'body'"), ("9", "no column '9'"), ("id", "column 'id' is int64, expected")],
)
def test_a_parquet_column_that_is_missing_or_no_text_is_named(table, column, problem):
    table("a.parquet", ["x"], pyarrow.string(), name="body")
    with pytest.raises(DataError, match=rf"^a\.parquet: {problem}"):
        documents("a.parquet", column=column)


def test_parquet_does_not_promise_utf8(table):
    binary = pyarrow.array([b"good \xef\xbf\xbd", b"bad \xff"], pyarrow.binary())
    parquet.write_table(pyarrow.table({"text": binary.view(pyarrow.string())}), "a.parquet")
    with pytest.raises(DataError, match=r"^a\.parquet, row 2: not UTF-8"):
        documents("a.parquet")
    with pytest.warns(UserWarning, match="not UTF-8 in 1 rows"):
        assert documents("a.parquet", invalid_utf8="replace") == ["good �", "bad �"]
    with pytest.warns(UserWarning, match="not UTF-8 in 1 rows; what stood there is left out"):
        assert documents("a.parquet", invalid_utf8="ignore") == ["good �", "bad "]


def test_a_damaged_parquet_file_is_named(table, here):
    table("a.parquet", ["x"] * 100, pyarrow.string())
    content = (here / "a.parquet").read_bytes()
    for length in (0, 4, len(content) // 2, len(content) - 1):
        (here / "a.parquet").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"^a\.parquet: "):
            documents("a.parquet")


# --- ids ---


def test_arrays_of_an_npz_are_documents_as_they_are(here, tiny):
    np.savez_compressed("a.npz", np.array([1, 2]), np.array([3], np.int32), np.arange(300_000) % 320)
    assert documents("a.npz", tokenizer=tiny) == [[1, 2], [3], (np.arange(300_000) % 320).tolist()]


def test_ids_are_no_text(here):
    np.savez("a.npz", np.array([1, 2]))
    with pytest.raises(DataError, match=r"^a\.npz: holds ids, not text"):
        documents("a.npz")


def test_an_id_outside_the_vocabulary_is_refused(here, tiny):
    np.savez("a.npz", np.array([1, 320]))
    with pytest.raises(FormatError, match=r"^a\.npz, arr_0\.npy: holds the id 320; the vocabulary has only 320"):
        documents("a.npz", tokenizer=tiny)


# --- what is not installed ---


@pytest.mark.parametrize(("name", "package"), [("a.parquet", "pyarrow"), ("a.txt.zst", "zstandard")])
def test_a_missing_package_is_named_with_the_way_to_get_it(write, monkeypatch, name, package):
    write(name, b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'gpt2kit\[data\]'"):
        documents(name)


# --- empty ---


def test_an_empty_file_named_by_hand_is_refused(write):
    for name, content in (
        *(("a.txt", b""), ("b.txt", "\ufeff".encode()), ("c.jsonl", b"\n\n"), ("d.csv", b"header\n")),
        *(("e.txt.gz", gzip.compress(b"")), ("f.csv", b"")),
    ):
        write(name, content)
        with pytest.raises(DataError, match=rf"^{name}: the file is empty"):
            documents(name)


def test_an_empty_file_among_others_is_skipped_with_a_warning(write):
    write("d/a.txt", b"")
    write("d/b.txt", b"text")
    with pytest.warns(UserWarning, match=r"a\.txt: skipped, the file is empty"):
        assert documents("d") == ["text"]


def test_only_empty_files_are_refused(write):
    write("d/a.txt", b"")
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(DataError, match="there is no text"):
        documents("d")


# --- one text ---


def test_one_file_can_be_read_whole(write):
    write("a.txt", "\ufeffa\r\n")
    assert read_text(write("a.txt", "\ufeffa\r\n")) == "a\r\n"
    with pytest.raises(DataError, match=r"^b\.txt: the file is empty"):
        read_text(write("b.txt", b""))


def test_bytes_can_be_decoded(here):
    assert decode_text("\ufeff床".encode(), "x") == "床"
    with pytest.raises(DataError, match=r"^x: not UTF-8 at byte 1"):
        decode_text(b"a\xff", "x")
