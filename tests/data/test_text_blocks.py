import gzip
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.config.reading import ReadingConfig
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


def read(place, **options):
    counts = []
    (source,) = find_sources([place])
    text = "".join(read_blocks(source, ReadingConfig(**options), counts.append))
    assert sum(counts) == source.size_bytes, "every byte of the file counts once"
    return text


def decoded(blocks, **options):
    return "".join(decode_blocks(blocks, "x", ReadingConfig(**options)))


# --- UTF-8 ---


@given(content=BYTES, cuts=CUTS, faults=st.sampled_from(["replace", "ignore"]))
@pytest.mark.filterwarnings("ignore:.*not UTF-8")
def test_blocks_are_decoded_as_python_decodes_the_whole(content, cuts, faults):
    assert decoded(cut(content, cuts), invalid_utf8=faults) == content.decode("utf-8", faults)


@given(content=BYTES, cuts=CUTS)
def test_the_first_byte_that_is_not_utf8_is_named(content, cuts):
    try:
        expected = content.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(DataError, match=rf"^x: not UTF-8 at byte {error.start} \({content[error.start]:02x}\)"):
            decoded(cut(content, cuts))
    else:
        assert decoded(cut(content, cuts)) == expected


@pytest.mark.parametrize(
    ("faults", "text", "ending"),
    [
        ("replace", "a�b\ufffd�c�", r"U\+FFFD stands there instead"),
        ("ignore", "ab\ufffdc", "what stood there is left out"),
    ],
)
def test_one_warning_tells_the_first_place_and_how_many(faults, text, ending):
    with pytest.warns(UserWarning, match=rf"^x: not UTF-8 in 3 places, the first at byte 1; {ending}$") as caught:
        assert decoded([b"a\xff", b"b\xef\xbf", b"\xbd\xe4", b"c\xf0\x9f"], invalid_utf8=faults) == text
    assert len(caught) == 1


def test_a_latin1_text_is_decoded_in_time_linear_in_its_length():
    """Half of a megabyte of faults: quadratic work would take minutes."""
    with pytest.warns(UserWarning, match="500,000 places"):
        assert decoded([b"a\xe9" * 500_000], invalid_utf8="replace") == "a�" * 500_000


@pytest.mark.parametrize("content", ["床前".encode("gbk"), "naïve".encode("latin-1")])
def test_other_encodings_are_refused_with_the_next_step(write, content):
    write("a.txt", content)
    with pytest.raises(DataError, match=r"iconv; .* --encoding NAME, .*--invalid-utf8 replace"):
        read("a.txt")


@pytest.mark.parametrize("blocks", [[b"abc\0def"], [b"ab", b"c\0def"]])
def test_a_zero_byte_is_no_text(blocks):
    for encoding in ("utf-8", "gb18030"):
        with pytest.raises(DataError, match=r"^x: looks binary \(a zero byte at 3\)"):
            decoded(blocks, encoding=encoding)


@pytest.mark.parametrize("blocks", [["\ufeffab", "\ufeffc"], ["\ufeff", "ab", "\ufeffc"]])
def test_only_the_first_byte_order_mark_is_dropped(blocks):
    assert "".join(without_byte_order_mark(blocks)) == "ab\ufeffc"


# --- other encodings ---

ENCODINGS = [
    "gb18030",
    "big5",
    "shift_jis",
    "iso2022_jp",
    "latin-1",
    "cp037",
    "utf-8-sig",
    "utf-16",
    "utf-16-be",
    "utf-32",
]


@pytest.mark.slow
@given(text=st.text(st.sampled_from("ab\n中月é🙂")), cuts=CUTS, encoding=st.sampled_from(ENCODINGS))
def test_a_text_in_any_encoding_is_read_however_it_is_cut(text, cuts, encoding):
    content = text.encode(encoding, "ignore")
    assert decoded(cut(content, cuts), encoding=encoding) == content.decode(encoding)


@given(content=BYTES, cuts=CUTS, encoding=st.sampled_from(["gb18030", "big5", "utf-16-le", "ascii"]))
@pytest.mark.filterwarnings("ignore:.*not [A-Z]")
def test_the_faults_of_any_encoding_are_those_that_python_finds(content, cuts, encoding):
    blocks = cut(content, cuts)
    for faults in ("replace", "ignore"):
        assert decoded(blocks, encoding=encoding, invalid_utf8=faults) == content.decode(encoding, faults)
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        with pytest.raises(DataError, match=rf"^x: not {encoding.upper()} at byte {error.start} \("):
            decoded(blocks, encoding=encoding)


def test_utf16_without_its_mark_is_refused_with_the_next_step(write):
    write("a.txt", "the cat".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"^a\.txt: cannot be decoded: UTF-16 .*BOM; .* utf-16-le: --encoding$"):
        read("a.txt", encoding="utf-16")
    assert read("a.txt", encoding="utf-16-le") == "the cat"


def test_half_a_character_is_refused_where_an_encoding_can_spell_it(write):
    write("a.txt", b"a+2AA-")
    with pytest.raises(DataError, match=r"^a\.txt: cannot be decoded: .*surrogates"):
        read("a.txt", encoding="utf-7")


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


@pytest.mark.slow
def test_a_file_that_unpacks_to_very_much_comes_in_bearable_blocks(write):
    """100 MiB out of a few KB: no block is over 64 MiB."""
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    packed = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(100)) + packer.flush()
    write("a.txt.zst", packed)
    (source,) = find_sources(["a.txt.zst"])
    sizes = [len(block) for block in read_blocks(source, ReadingConfig(), lambda count: None)]
    assert sum(sizes) == 100 << 20
    assert max(sizes) <= 64 << 20


def test_a_file_without_permission_or_a_directory_is_named(write, here):
    (source,) = find_sources([write("a.txt", b"x")])
    (here / "a.txt").unlink()
    with pytest.raises(DataError, match=r"^a\.txt: cannot be read: No such file"):
        list(read_blocks(source, ReadingConfig(), lambda count: None))
