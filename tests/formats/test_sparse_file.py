import io
import random

from gpt2kit.formats.sparse_file import PAGE_BYTES, SparseFile


def test_it_behaves_like_a_file_in_memory():
    draw, expected, found = random.Random(0), io.BytesIO(), SparseFile()
    for _ in range(500):
        at, length = draw.randrange(5 * PAGE_BYTES), draw.choice([0, 1, 100, PAGE_BYTES, 2 * PAGE_BYTES])
        content = draw.randbytes(length)
        for file in (expected, found):
            file.seek(at)
            assert file.write(content) == length
            assert file.tell() == at + length
        at = draw.randrange(at + 1)
        assert (expected.seek(at), expected.read(length)) == (found.seek(at), found.read(length))
    assert expected.seek(0, io.SEEK_END) == found.seek(0, io.SEEK_END)


def test_its_copy_is_the_same(tmp_path):
    layout = SparseFile()
    layout.seek(10 * PAGE_BYTES - 1)
    layout.write(b"abc")
    layout.truncate(20 * PAGE_BYTES)
    with (tmp_path / "copy").open("wb") as file:
        layout.copy_to(file)
    expected = bytes(10 * PAGE_BYTES - 1) + b"abc" + bytes(10 * PAGE_BYTES - 2)
    assert (tmp_path / "copy").read_bytes() == expected


def test_what_was_never_written_takes_no_memory():
    layout = SparseFile()
    layout.seek(10**15)
    layout.write(b"end")
    assert layout.seek(-3, io.SEEK_END) == 10**15
    assert layout.read(3) == b"end"
