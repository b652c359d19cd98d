import io
import zipfile
from pathlib import Path

import pytest

from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.stored_zip import open_entries

CONTENTS = {"a/one": b"1", "a/empty": b"", "b/ä": bytes(range(256))}


def archive(contents=CONTENTS, comment=b"", **how):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **how) as whole:
        for name, content in contents.items():
            whole.writestr(name, content)
        whole.comment = comment
    return file.getvalue()


def entries(content):
    found = open_entries(Path("x.zip"), io.BytesIO(content))
    return {name: content[place.start : place.stop] for name, place in found.items()}


def test_what_zipfile_writes_is_found():
    assert entries(archive()) == CONTENTS


@pytest.mark.parametrize("comment", [b"hello", b"PK\5\6", bytes(65535)], ids=["short", "another end", "long"])
def test_a_comment_does_not_hide_the_end(comment):
    assert entries(archive(comment=comment)) == CONTENTS


def test_an_archive_without_entries_is_read():
    assert entries(archive({})) == {}


def test_sizes_and_offsets_beyond_4_gb_are_found(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)  # from here on numbers go to the large fields
    assert entries(archive()) == CONTENTS


def test_an_archive_that_lies_beyond_4_gb_is_read(tmp_path):
    path = tmp_path / "x.zip"
    with path.open("wb") as file:
        file.seek(5 * 2**30)  # a hole: it takes no room on the disk
        with zipfile.ZipFile(file, "w") as whole:
            whole.writestr("a", b"content")
    with path.open("rb") as file:
        place = open_entries(path, file)["a"]
        file.seek(place.start)
        assert (file.read(len(place)), place.start > 2**32) == (b"content", True)


def test_compressed_entries_are_left_out():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as whole:
        whole.writestr("a", b"plain")
        whole.writestr("b", b"packed", zipfile.ZIP_DEFLATED)
    assert entries(file.getvalue()) == {"a": b"plain"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as whole:
        whole.writestr("a", b"1")
        whole.writestr("a", b"2")
    with pytest.raises(FormatError, match="a second entry 'a'"):
        entries(file.getvalue())


def test_every_cut_is_noticed():
    for length in range(len(archive())):
        with pytest.raises(TruncatedFile, match="the zip archive has no end"):
            entries(archive()[:length])


WHOLE = archive()
DIRECTORY, END = WHOLE.index(b"PK\1\2"), WHOLE.index(b"PK\5\6")
FULL = b"\xff" * 4


def patched(at, new):
    return WHOLE[:at] + new + WHOLE[at + len(new) :]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (patched(END + 12, b"\x00\x00\x00\x7f"), "claims a zip directory of 2130706432 bytes"),
        (patched(END + 16, b"\x00\x00\x00\x7f"), "at 2130706432, which is not before this"),
        (patched(END + 12, FULL), "the end of a large zip archive is missing"),
        (patched(DIRECTORY, b"XX"), "no entry here"),
        (patched(DIRECTORY + 28, b"\xff\xff"), "its last entry is longer than it"),
        (patched(DIRECTORY + 24, b"\x02"), "has 1 bytes of 2"),
        (patched(DIRECTORY + 20, b"\0\0\0\1\0\0\0\1"), "reaches into the directory"),
        (patched(DIRECTORY + 20, FULL + FULL), "does not tell its size"),
        (patched(DIRECTORY + 42, b"\x05"), "no zip entry here; the directory promises 'a/one'"),
        (patched(DIRECTORY + 42, b"\x00\x00\x00\x7f"), "ends inside the entry 'a/one'"),
        (patched(26, b"\xff\xff"), "reaches into the directory"),
    ],
)
def test_damage_is_told(content, problem):
    with pytest.raises(FormatError, match=problem):
        entries(content)
