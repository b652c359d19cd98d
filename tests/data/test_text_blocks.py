import gzip
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.data.sources import find_sources
from gpt2kit.data.text_blocks import decode_blocks, read_blocks, split_lines, without_byte_order_mark
from gpt2kit.errors import DataError

zstandard = pytest.importorskip("zstandard")
# Whole characters of every length, their halves, and bytes that UTF-8 never has.
FRAGMENTS = st.sampled_from(
    [b"a", "é".encode(), "中".encode(), "🙂".encode(), b"\xe4\xb8", b"\xf0\x9f", b"\x80", b"\xff"]
)
BYTES = st.lists(FRAGMENTS | st.binary(max_size=3), max_size=20).map(lambda parts: b"".join(parts).replace(b"\0", b"0"))
CUTS = st.lists(st.integers(0, 60), max_size=6)


def cut(whole, places):
    edges = [0, *sorted(place for place in places if place < len(whole)), len(whole)]
    return [whole[start:end] for start, end in itertools.pairwise(edges)]


def read(place, invalid_utf8="refuse"):
    counts = []
    (source,) = find_sources([place])
    text = "".join(read_blocks(source, invalid_utf8, counts.append))
    assert sum(counts) == source.size_bytes, "every byte of the file counts once"
    return text


# --- UTF-8 ---


@given(content=BYTES, cuts=CUTS)
@pytest.mark.filterwarnings("ignore:.*not UTF-8")
def test_blocks_are_decoded_as_python_decodes_the_whole(content, cuts):
    text = "".join(decode_blocks(cut(content, cuts), "x", "replace"))
    assert text == content.decode("utf-8", "replace")


@given(content=BYTES, cuts=CUTS)
def test_the_first_byte_that_is_not_utf8_is_named(content, cuts):
    try:
        expected = content.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(DataError, match=rf"^x: not UTF-8 at byte {error.start} \({content[error.start]:02x}\)"):
            list(decode_blocks(cut(content, cuts), "x"))
    else:
        assert "".join(decode_blocks(cut(content, cuts), "x")) == expected


def test_one_warning_tells_the_first_place_and_how_many(here):
    with pytest.warns(UserWarning, match=r"^x: not UTF-8 in 3 places, the first at byte 1; U\+FFFD") as caught:
        text = "".join(decode_blocks([b"a\xff", b"b\xe4", b"c\xf0\x9f"], "x", "replace"))
    assert (text, len(caught)) == ("a�b�c�", 1)


def test_a_latin1_text_is_decoded_in_time_linear_in_its_length():
    """Half of a megabyte of faults: quadratic work would take minutes."""
    with pytest.warns(UserWarning, match="500,000 places"):
        text = "".join(decode_blocks([b"a\xe9" * 500_000], "x", "replace"))
    assert text == "a�" * 500_000


@pytest.mark.parametrize("content", ["床前".encode("gbk"), "naïve".encode("latin-1")])
def test_other_encodings_are_refused_with_the_next_step(write, content):
    write("a.txt", content)
    with pytest.raises(DataError, match="iconv"):
        read("a.txt")


@pytest.mark.parametrize("blocks", [[b"abc\0def"], [b"ab", b"c\0def"]])
def test_a_zero_byte_is_no_text(blocks):
    with pytest.raises(DataError, match=r"^a: looks binary \(a zero byte at 3\)"):
        list(decode_blocks(blocks, "a"))


@pytest.mark.parametrize("blocks", [["\ufeffab", "\ufeffc"], ["\ufeff", "ab", "\ufeffc"]])
def test_only_the_first_byte_order_mark_is_dropped(blocks):
    assert "".join(without_byte_order_mark(blocks)) == "ab\ufeffc"


# --- lines ---


@given(text=st.text(st.sampled_from("ab\r\n\x85\u2028")), cuts=CUTS, newline=st.sampled_from(["", "\n"]))
def test_blocks_are_split_into_lines_as_python_splits_the_whole(text, cuts, newline):
    blocks = [block for block in cut(text, cuts) if block]
    assert list(split_lines(blocks, newline)) == list(io.StringIO(text, newline=newline))


# --- compression ---

TEXT = "床前明月光\r\n" * 50_000
FRAMES = zstandard.compress(TEXT[:1000].encode()) + zstandard.compress(TEXT[1000:].encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.txt", TEXT.encode()),
        ("one.txt.gz", gzip.compress(TEXT.encode())),
        ("two members.txt.gz", gzip.compress(TEXT[:1000].encode()) + gzip.compress(TEXT[1000:].encode())),
        ("one.txt.zst", zstandard.compress(TEXT.encode())),
        ("two frames.txt.zst", FRAMES),
    ],
)
def test_compressed_text_is_the_text(write, name, content):
    write(name, content)
    assert read(name) == TEXT


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
def test_a_file_cut_off_anywhere_is_refused(write, compress):
    content = compress(b"0123456789abcdef" * 40)
    suffix = "gz" if compress is gzip.compress else "zst"
    for length in range(1, len(content)):
        write(f"a.txt.{suffix}", content[:length])
        with pytest.raises(DataError, match=rf"^a\.txt\.{suffix}: damaged or cut off"):
            read(f"a.txt.{suffix}")


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_what_is_not_compressed_is_refused(write, suffix):
    write(f"a.txt.{suffix}", b"plain text, not compressed at all")
    with pytest.raises(DataError, match="damaged"):
        read(f"a.txt.{suffix}")


def test_the_offset_in_a_compressed_file_is_that_after_decompression(write):
    write("a.txt.gz", gzip.compress(b"a" * 1_000_000 + b"\xff"))
    with pytest.raises(DataError, match="not UTF-8 at byte 1000000"):
        read("a.txt.gz")


def test_a_file_that_unpacks_to_very_much_comes_in_bearable_blocks(write):
    """100 MiB out of a few KB: no block is over 64 MiB."""
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    packed = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(100)) + packer.flush()
    write("a.txt.zst", packed)
    (source,) = find_sources(["a.txt.zst"])
    sizes = [len(block) for block in read_blocks(source, "refuse", lambda count: None)]
    assert sum(sizes) == 100 << 20
    assert max(sizes) <= 64 << 20


def test_a_file_without_permission_or_a_directory_is_named(write, here):
    (source,) = find_sources([write("a.txt", b"x")])
    (here / "a.txt").unlink()
    with pytest.raises(DataError, match=r"^a\.txt: cannot be read: No such file"):
        list(read_blocks(source, "refuse", lambda count: None))
