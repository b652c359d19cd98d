import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.chunks import chunk_pieces
from gpt2kit.data.sources import Source, find_sources
from gpt2kit.errors import DataError

END = "<|endoftext|>"


def chunks(*inputs, combine=50000, **options):
    """The texts of the arrays, and the names of what holds arrays already, in the order of an .npz."""
    found, text = [], ""
    for part in chunk_pieces(find_sources(inputs), ReadingConfig(combine=combine, **options), lambda count: None):
        if isinstance(part, Source):
            found.append(part.path)
            continue
        text += part.content
        if part.ends_document:
            found.append(text)
            text = ""
    assert not text, "the last piece ends an array"
    return found


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
PLAIN = st.text(st.sampled_from("ab\r\n\ufeff\udcff"), min_size=1, max_size=60)  # \udcff: the byte ff, no UTF-8
FILES = st.lists(PLAIN | CSV, min_size=1, max_size=6)


@given(files=FILES, combine=st.integers(1, 100))
@pytest.mark.filterwarnings("ignore:.*(not UTF-8|is empty)")
def test_texts_are_joined_as_gpt_2_simple_joined_them(tmp_path_factory, files, combine):
    directory, paths = tmp_path_factory.mktemp("chunks"), []
    for number, content in enumerate(files):
        paths.append(str(directory / f"{number}.{'txt' if isinstance(content, str) else 'csv'}"))
        if not isinstance(content, str):
            written = io.StringIO(newline="")
            csv.writer(written, quoting=csv.QUOTE_ALL).writerows([["header"], *content, ["last"]])
            content = written.getvalue()
        with open(paths[-1], "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(content)
    expected = as_gpt_2_simple_did(paths, combine)
    assert chunks(str(directory / "*"), combine=combine, invalid_utf8="ignore") == expected


def test_a_csv_line_says_where_a_text_starts_and_ends(write):
    write("a.csv", 'name\n"say ""hi"", he said",x\n"two\nlines"\n')
    expected = f'<|startoftext|>say "hi", he said{END}\n<|startoftext|>two\nlines{END}\n'
    assert chunks("a.csv", combine=1) == [expected]


def test_the_first_line_of_a_csv_is_its_header_even_where_it_is_blank(write):
    write("a.csv", "\nthe cat\n")
    assert chunks("a.csv") == [f"<|startoftext|>the cat{END}\n"]


def test_another_csv_column_is_a_choice(write):
    write("a.csv", "title,body\na,b\n")
    assert chunks("a.csv", column="body") == [f"<|startoftext|>b{END}\n"]


def test_an_npz_comes_at_once_and_what_is_pending_waits(write):
    write("a.txt", "pending")
    npz = write("b.npz", b"not read yet")
    write("c.txt", "more")
    assert chunks("a.txt", "b.npz", "c.txt") == [npz, f"pending{END}more{END}"]
    assert chunks("a.txt", "b.npz", "c.txt", combine=1) == ["pending", npz, "more"]


def test_every_document_of_a_file_counts_as_a_file(write):
    write("a.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    write("b.txt", "three|four")
    assert chunks("a.jsonl", combine=4) == [f"one{END}two"]
    assert chunks("b.txt", split_on="|", combine=4) == ["three", "four"]


def test_an_empty_file_is_refused_by_name_and_noted_among_others(write):
    write("d/a.txt", "")
    write("d/b.txt", "text")
    with pytest.raises(DataError, match=r"a\.txt: the file is empty"):
        chunks("d/a.txt")
    with pytest.warns(UserWarning, match=r"a\.txt: the file is empty"):
        assert chunks("d") == [f"{END}text{END}"]


def test_only_empty_files_with_nothing_between_them_are_refused(write):
    write("d/a.txt", "")
    with pytest.warns(UserWarning, match="empty"), pytest.raises(DataError, match="there is no text"):
        chunks("d", separator="")
