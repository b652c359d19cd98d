import shutil
import struct
import time

import cramjam
import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.sorted_table import MAX_ENTRIES, is_table, masked_crc32c, read_table, table_bytes

MAGIC = bytes.fromhex("57fb808b247547db")
PAIRS = [(b"", b"first"), (b"model/h0", b""), (b"model/h1", b"\0\xff"), (b"model/h10", b"x" * 300)]
WRITTEN_BY_TENSORFLOW = [
    "openai-tiny/model.ckpt",
    "openai-deep/model.ckpt",
    "nshepperd/checkpoint/run1/model-4",
    "gpt2ml/model.ckpt-100000",
    "tensorbundle/dtypes/v",
    "tensorbundle/multiblock/v",
    "tensorbundle/sharded_adam/model.ckpt-2",
    "tensorbundle/tf2_object/ckpt-1",
]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.ckpt.index"


def block(contents, compression=0):
    """A block as it lies in the file, with a right checksum."""
    crc = google_crc32c.value(contents + bytes([compression]))
    return contents + struct.pack("<BI", compression, ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def plain(pairs):
    """What a block holds, each entry a restart; keys and values must have less than 128 bytes."""
    entries = [bytes([0, len(key), len(value)]) + key + value for key, value in pairs]
    places = [sum(map(len, entries[:number])) for number in range(len(entries))] or [0]
    return b"".join(entries) + struct.pack(f"<{len(places) + 1}I", *places, len(places))


def varint(number):
    return bytes([number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14 & 0x7F | 0x80, number >> 21])


def table(*blocks, handles=None):
    """A file of these blocks; `handles` are the places and sizes that its index tells."""
    places = [sum(map(len, blocks[:number])) for number in range(len(blocks))]
    handles = handles or [(place, len(block) - 5) for place, block in zip(places, blocks, strict=True)]
    index = block(plain((bytes([65 + at]), varint(a) + varint(b)) for at, (a, b) in enumerate(handles)))
    whole = b"".join(blocks)
    footer = varint(len(whole)) + varint(0) + varint(len(whole)) + varint(len(index) - 5)
    return whole + index + footer.ljust(40, b"\0") + MAGIC


def refused(file, content, match, error=FormatError):
    file.write_bytes(content)
    with pytest.raises(error, match=match) as raised:
        list(read_table(file))
    assert str(file) in str(raised.value)


# --- what TensorFlow wrote ---


@pytest.mark.parametrize("name", WRITTEN_BY_TENSORFLOW)
def test_what_tensorflow_wrote_is_written_again_bit_by_bit(shared, name):
    path = shared / "fixtures" / f"{name}.index"
    assert table_bytes(read_table(path)) == path.read_bytes()


def test_several_blocks_are_read(shared):
    keys = [key for key, _ in read_table(shared / "fixtures/tensorbundle/multiblock/v.index")]
    assert len(keys) == 3601
    assert keys == sorted(keys)


def test_blocks_packed_with_snappy_are_read(shared):
    folder = shared / "fixtures" / "tensorbundle"
    assert list(read_table(folder / "snappy_index/v.index")) == list(read_table(folder / "dtypes/v.index"))


def test_a_known_checksum_is_found():
    # 32 zeros, RFC 3720 appendix B.4: 8a9136aa; turned by 15 bits and shifted by 0xa282ead8.
    assert masked_crc32c(bytes(32)) == (((0x8A9136AA >> 15) | (0x8A9136AA << 17 & 0xFFFFFFFF)) + 0xA282EAD8) % 2**32


def test_a_table_is_told_by_its_end(golden, file):
    file.write_bytes(b"x")
    assert is_table(golden / "openai-tiny" / "model.ckpt.index")
    assert not is_table(file)
    assert not is_table(golden / "openai-tiny" / "hparams.json")


# --- round trips ---


@pytest.mark.slow
@given(
    st.dictionaries(st.binary(max_size=8) | st.text("ab/", max_size=40).map(str.encode), st.binary(max_size=50)),
    st.integers(1, 200),
)
def test_what_is_written_is_read(tmp_path_factory, pairs, block_bytes):
    file = tmp_path_factory.mktemp("table") / "index"
    file.write_bytes(table_bytes(sorted(pairs.items()), block_bytes))
    assert list(read_table(file)) == sorted(pairs.items())
    shutil.rmtree(file.parent)


def test_blocks_without_shared_beginnings_are_read(file):
    file.write_bytes(table(block(plain(PAIRS[:2])), block(plain(PAIRS[2:3]))))
    assert list(read_table(file)) == PAIRS[:3]


# --- damage ---


@pytest.mark.slow
def test_every_cut_is_noticed(file):
    whole = table_bytes(PAIRS)
    for length in range(len(whole)):
        refused(file, whole[:length], "too short|bad magic")


def test_every_flipped_bit_of_the_blocks_is_noticed(file):
    whole = table(block(plain(PAIRS[:3])))
    for at in range(len(whole) - 48):
        refused(file, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], "crc mismatch")


def test_an_empty_file_is_too_short(file):
    refused(file, b"", "too short for a TensorBundle index", TruncatedFile)


def test_another_magic_is_shown(file):
    refused(file, bytes(100), "ends with 0000000000000000, expected 57fb808b247547db")


def test_an_unknown_compression_is_named(file):
    refused(file, table(block(plain(PAIRS[:2]), 7)), "compression 7; known are 0")


def test_keys_out_of_order_are_refused(file):
    refused(file, table(block(plain([(b"b", b""), (b"a", b"")]))), "key b'a' follows b'b'")


def test_keys_out_of_order_across_blocks_are_refused(file):
    refused(file, table(block(plain([(b"b", b"")])), block(plain([(b"b", b"")]))), "key b'b' follows b'b'")


def test_one_block_is_not_read_twice(file):
    data = block(plain(PAIRS[:2]))
    refused(file, table(data, handles=[(0, len(data) - 5)] * 2), "expected 31 or later")


@pytest.mark.parametrize("place", [(0, 10**8), (10**8, 8)], ids=str)
def test_a_block_beyond_the_end_is_refused(file, place):
    refused(file, table(block(plain(PAIRS[:2])), handles=[place]), "would reach beyond")


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        (b"", "0 bytes, expected 4"),
        (struct.pack("<I", 2**32 - 1), "claims 4294967295 restarts"),
        (bytes([9, 1, 0]) + b"k" + struct.pack("<II", 0, 1), "beyond its end"),
        (bytes([0, 1, 100]) + b"k" + struct.pack("<II", 0, 1), "beyond its end"),
        (b"\xff" * 11 + struct.pack("<II", 0, 1), "more than 10 bytes"),
        (bytes([0, 0x80]) + struct.pack("<II", 0, 1), "ends inside|beyond its end"),
    ],
    ids=["empty", "restarts", "shared", "value", "long number", "cut number"],
)
def test_impossible_entries_are_refused(file, contents, match):
    refused(file, table(block(contents)), match)


def test_a_handle_that_is_no_number_is_refused(file):
    index = block(plain([(b"a", b"\xff")]))
    footer = varint(0) + varint(0) + varint(0) + varint(len(index) - 5)
    refused(file, index + footer.ljust(40, b"\0") + MAGIC, "index block is damaged")


def test_a_footer_of_endless_numbers_is_refused(file):
    refused(file, bytes(60) + b"\xff" * 40 + MAGIC, "the footer is damaged")


def test_what_unpacks_to_gigabytes_is_refused_before(file):
    claims_4_gb = b"\xff\xff\xff\xff\x0f" + b"\0a"
    refused(file, table(block(claims_4_gb, 1)), "claims 4294967295 bytes unpacked")


def test_damaged_snappy_is_refused(file):
    packed = bytes(cramjam.snappy.compress_raw(plain(PAIRS[:3])))
    refused(file, table(block(packed[:-3], 1)), "snappy block here is damaged")


def test_keys_that_unfold_to_gigabytes_are_refused(file):
    # Each shares all with the one before, and adds a byte.
    first = bytes([0, 1, 0]) + b"a"
    grown = b"".join(bytes([at & 0x7F | 0x80, at >> 7, 1, 0]) + b"a" for at in range(1, 2**14))
    refused(file, table(block(first + grown + struct.pack("<II", 0, 1))), "a key of 1001 bytes")


def test_too_many_entries_are_refused_soon(file):
    pairs = ((number.to_bytes(4, "big"), b"") for number in range(MAX_ENTRIES + 1))
    start = time.monotonic()
    refused(file, table_bytes(pairs), "more than 20000 entries")
    assert time.monotonic() - start < 10


def test_a_huge_file_is_refused_unread(file):
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(FormatError, match="an index of 1099511627776 bytes"):
        list(read_table(file))
