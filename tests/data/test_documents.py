from pathlib import Path

import pytest

from gpt2kit.data.documents import Document, read_documents, read_text
from gpt2kit.errors import DataError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory of our own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place, content):
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def sources(*inputs):
    return [Path(document.source).as_posix() for document in read_documents(inputs)]


def test_a_file_is_one_document(here):
    write("a.txt", "床前明月光\n".encode())
    assert list(read_documents(["a.txt"])) == [Document("床前明月光\n", "a.txt")]


def test_paths_and_strings_are_both_inputs(here):
    write("a.txt", b"a")
    assert [document.text for document in read_documents([Path("a.txt"), "a.txt"])] == ["a", "a"]


def test_a_directory_is_its_text_files_at_any_depth_in_order_of_name(here):
    for name in ("d/z.txt", "d/b/c.md", "d/a.txt", "d/picture.png", "d/b/noise.json"):
        write(name, b"text")
    assert sources("d") == ["d/a.txt", "d/b/c.md", "d/z.txt"]


def test_a_file_named_by_hand_may_have_any_suffix(here):
    write("poem.log", b"text")
    assert sources("poem.log") == ["poem.log"]


def test_a_glob_is_every_file_it_matches_in_order_of_name(here):
    for name in ("b1.txt", "a1.txt", "a2.txt", "a3.txt/inside.txt"):
        write(name, b"text")
    assert sources("a*.txt") == ["a1.txt", "a2.txt"]


def test_a_glob_may_go_any_depth(here):
    for name in ("x/a.txt", "x/y/b.txt"):
        write(name, b"text")
    assert sources("x/**/*.txt") == ["x/a.txt", "x/y/b.txt"]


def test_inputs_are_read_in_the_order_given(here):
    for name in ("a.txt", "b.txt"):
        write(name, b"text")
    assert sources("b.txt", "a.txt") == ["b.txt", "a.txt"]


def test_a_name_with_pattern_characters_is_a_name_first(here):
    write("a[1].txt", b"text")
    assert sources("a[1].txt") == ["a[1].txt"]


def test_documents_are_read_one_at_a_time(here):
    write("a.txt", b"a")
    documents = read_documents(["a.txt", "missing.txt"])
    assert next(documents).text == "a"


def test_a_byte_order_mark_is_not_part_of_the_text(here):
    write("a.txt", "\ufeffabc".encode())
    assert read_text(Path("a.txt")) == "abc"


def test_line_ends_stay_as_they_are(here):
    write("a.txt", b"a\r\nb\nc\r")
    assert read_text(Path("a.txt")) == "a\r\nb\nc\r"


@pytest.mark.parametrize(
    ("content", "place", "byte"),
    [
        (b"\xff", 0, "ff"),
        ("ab中".encode() + b"\xc3(", 5, "c3"),
        ("床前".encode("gbk"), 0, "b4"),
        ("\ufeffab".encode() + b"\xfe", 5, "fe"),
    ],
    ids=["first byte", "after a character", "another encoding", "after a byte order mark"],
)
def test_what_is_not_utf8_is_refused_with_its_place(here, content, place, byte):
    write("a.txt", content)
    with pytest.raises(DataError, match=rf"^a\.txt: not UTF-8 at byte {place} \({byte}\)"):
        read_text(Path("a.txt"))


def test_a_binary_file_is_refused(here):
    write("a.txt", b"abc\0def")
    with pytest.raises(DataError, match=r"^a\.txt: looks binary \(a zero byte at 3\)"):
        read_text(Path("a.txt"))


def test_utf16_is_refused(here):
    write("a.txt", "text".encode("utf-16"))
    with pytest.raises(DataError, match="binary"):
        read_text(Path("a.txt"))


@pytest.mark.parametrize("content", [b"", "\ufeff".encode()], ids=["nothing", "only a byte order mark"])
def test_an_empty_file_is_refused(here, content):
    write("a.txt", content)
    with pytest.raises(DataError, match=r"^a\.txt: the file is empty"):
        read_text(Path("a.txt"))


def test_a_missing_file_is_refused_by_name(here):
    with pytest.raises(DataError, match=r"^nowhere\.txt: no such file"):
        list(read_documents(["nowhere.txt"]))


def test_a_directory_is_not_one_text(here):
    with pytest.raises(DataError, match="cannot be read"):
        read_text(here)


def test_a_glob_without_a_match_is_refused(here):
    with pytest.raises(DataError, match=r"^\*\.txt: no such file or directory, and no file matches"):
        list(read_documents(["*.txt"]))


def test_a_directory_without_texts_is_refused(here):
    write("d/picture.png", b"\x89PNG")
    with pytest.raises(DataError, match=r"^d: no \.txt or \.md file"):
        list(read_documents(["d"]))


def test_one_bad_file_in_a_directory_is_named(here):
    write("d/a.txt", b"good")
    write("d/b.txt", b"\xff")
    with pytest.raises(DataError, match=r"b\.txt: not UTF-8"):
        list(read_documents(["d"]))
