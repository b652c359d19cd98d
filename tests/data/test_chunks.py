import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.chunks import chunk_pieces
from gpt2kit.data.sources import find_sources
from gpt2kit.errors import DataError

END = "<|endoftext|>"


def chunks(*inputs, combine=50000, **options):
    """The texts of the arrays, and the plan."""
    plan, found = [], [""]
    for piece in chunk_pieces(find_sources(inputs), ReadingConfig(**options), combine, plan, lambda count: None):
        found[-1] += piece.content
        found += [""] if piece.ends_document else []
    assert found.pop() == "", "the last piece ends an array"
    return found, [entry if isinstance(entry, int) else str(entry) for entry in plan]


def as_gpt_2_simple_did(paths, combine):
    """load_dataset of gpt-2-simple 0.8.1, its lines as they are but for the encoder."""
    token_chunks = []
    raw_text = ""
    for path in paths:
        if path.endswith(".csv"):
            start_token = "<|startoftext|>"
            end_token = "<|endoftext|>"
            with open(path, encoding="utf8", errors="ignore") as fp:
                fp.readline()  # skip header
                reader = csv.reader(fp)
                for row in reader:
                    raw_text += start_token + row[0] + end_token + "\n"
        else:
            with open(path, encoding="utf8", errors="ignore") as fp:
                raw_text += fp.read()
            if len(raw_text) >= combine:
                token_chunks.append(raw_text)
                raw_text = ""
            else:
                raw_text += "<|endoftext|>"
    if raw_text:
        token_chunks.append(raw_text)
    return token_chunks


CELLS = st.text(st.sampled_from('ab,"\n\r'), min_size=1)
CSV = st.lists(st.lists(CELLS, min_size=1, max_size=2), max_size=3)
FILES = st.lists(st.text(st.sampled_from("ab\r\n\ufeff"), min_size=1, max_size=60) | CSV, min_size=1, max_size=6)


@given(files=FILES, combine=st.integers(1, 100))
def test_texts_are_joined_as_gpt_2_simple_joined_them(tmp_path_factory, files, combine):
    directory, paths = tmp_path_factory.mktemp("chunks"), []
    for number, content in enumerate(files):
        paths.append(str(directory / f"{number}.{'txt' if isinstance(content, str) else 'csv'}"))
        if not isinstance(content, str):
            written = io.StringIO(newline="")
            csv.writer(written, quoting=csv.QUOTE_ALL).writerows([["header"], *content, ["last"]])
            content = written.getvalue()
        with open(paths[-1], "w", encoding="utf-8", newline="") as file:
            file.write(content)
    expected = as_gpt_2_simple_did(paths, combine)
    assert chunks(*paths, combine=combine) == (expected, list(range(len(expected))))


def test_a_csv_line_says_where_a_text_starts_and_ends(write):
    write("a.csv", 'name\n"say ""hi"", he said",x\n"two\nlines"\n')
    expected = f'<|startoftext|>say "hi", he said{END}\n<|startoftext|>two\nlines{END}\n'
    assert chunks("a.csv", combine=1) == ([expected], [0])


def test_another_csv_column_is_a_choice(write):
    write("a.csv", "title,body\na,b\n")
    assert chunks("a.csv", column="body")[0] == [f"<|startoftext|>b{END}\n"]


def test_an_npz_comes_at_once_and_what_is_pending_waits(write):
    write("a.txt", "pending")
    write("b.npz", b"not read yet")
    write("c.txt", "more")
    assert chunks("a.txt", "b.npz", "c.txt") == ([f"pending{END}more{END}"], ["b.npz", 0])
    assert chunks("a.txt", "b.npz", "c.txt", combine=1) == (["pending", "more"], [0, "b.npz", 1])


def test_every_document_of_a_file_counts_as_a_file(write):
    write("a.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    write("b.txt", "three|four")
    assert chunks("a.jsonl", combine=4)[0] == [f"one{END}two"]
    assert chunks("b.txt", split_on="|", combine=4)[0] == ["three", "four"]


def test_an_empty_file_is_refused_by_name_and_noted_among_others(write):
    write("d/a.txt", "")
    write("d/b.txt", "text")
    with pytest.raises(DataError, match=r"a\.txt: the file is empty"):
        chunks("d/a.txt")
    with pytest.warns(UserWarning, match=r"a\.txt: the file is empty"):
        assert chunks("d")[0] == [f"{END}text{END}"]
