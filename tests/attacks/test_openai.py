"""TensorFlow's files, damaged: as they lie there, and behind their checksums, where a forger would do it."""

import re
import shutil
import struct
import warnings
from contextlib import contextmanager
from pathlib import Path

import cramjam
import google_crc32c
import pytest

from gpt2kit.formats import openai
from gpt2kit.formats.protobuf import read_varint
from gpt2kit.formats.sorted_table import FOOTER_BYTES, MAGIC, read_table, table_bytes

pytestmark = pytest.mark.slow
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
MOST_BYTES = 2**30  # that reading a file may take


@pytest.fixture
def directory(golden, tmp_path):
    """A good model that may be damaged."""
    return shutil.copytree(golden / "openai-tiny", tmp_path / "model")


@pytest.fixture
def attack(directory, survives):
    """attack(file, original, forge): damage `original`; what `forge` makes of it is a file of a model to read."""

    def attacked(file, original, forge=bytes):
        def open_and_read(content):
            (directory / file).write_bytes(forge(content))
            with warnings.catch_warnings(action="ignore"):
                for tensor in openai.read(directory).tensors.values():
                    tensor.read()

        open_and_read(original)  # undamaged it is good
        with taking_at_most(MOST_BYTES):
            survives(original, open_and_read)

    return attacked


@contextmanager
def taking_at_most(size_bytes):
    """The block's own peak of memory, whatever this process took before: Linux can forget what the peak was."""
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not forget.exists():
        yield
        return
    forget.write_bytes(b"5")
    before = int(re.search(rb"VmHWM:\s+(\d+)", status.read_bytes())[1])
    yield
    peak = int(re.search(rb"VmHWM:\s+(\d+)", status.read_bytes())[1])
    assert (peak - before) * 1024 < size_bytes


@pytest.fixture
def index(directory):
    return (directory / INDEX).read_bytes()


@pytest.fixture
def entries(index):
    """The contents of the index's only data block; the metaindex lies behind it."""
    end, _ = read_varint(index, len(index) - FOOTER_BYTES)
    return index[: end - 5]


def sealed(contents, compression=0):
    """A block with a right checksum."""
    crc = google_crc32c.value(contents + bytes([compression]))
    return contents + struct.pack("<BI", compression, ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def varint(number):
    """A varint of 8 bytes, whatever the number."""
    return bytes([number >> shift & 0x7F | 0x80 for shift in range(0, 49, 7)] + [number >> 49])


def handle(offset, block):
    return varint(offset) + varint(len(block) - 5)


def index_entries(block):
    """What an index block says of one data block at the beginning of the file: one entry, one restart."""
    return bytes([0, 1, 16]) + b"n" + handle(0, block) + struct.pack("<II", 0, 1)


def assembled(block, index_block=None):
    """A whole index around one data block."""
    index_block = index_block or sealed(index_entries(block))
    place = handle(len(block), index_block)
    return block + index_block + (place + place).ljust(FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC


# --- as they lie there ---


@pytest.mark.parametrize("file", [INDEX, DATA, "checkpoint", "hparams.json"])
def test_a_damaged_file_is_read_or_refused(attack, directory, file):
    attack(file, (directory / file).read_bytes())


# --- behind the checksums ---


def test_damaged_entries_under_a_right_checksum_are_read_or_refused(attack, entries):
    attack(INDEX, entries, lambda damaged: assembled(sealed(damaged)))


def test_a_damaged_index_block_under_a_right_checksum_is_read_or_refused(attack, entries):
    block = sealed(entries)
    attack(INDEX, index_entries(block), lambda damaged: assembled(block, sealed(damaged)))


def test_damaged_entries_inside_snappy_are_read_or_refused(attack, entries):
    attack(INDEX, entries, lambda damaged: assembled(sealed(bytes(cramjam.snappy.compress_raw(damaged)), 1)))


def test_damaged_snappy_is_read_or_refused(attack, entries):
    packed = bytes(cramjam.snappy.compress_raw(entries))
    attack(INDEX, packed, lambda damaged: assembled(sealed(damaged, 1)))


@pytest.mark.parametrize("name", [b"", b"model/h0/attn/c_attn/b", b"model/h2/mlp/c_fc/w", b"model/wte"])
def test_a_damaged_entry_is_read_or_refused(attack, directory, name):
    pairs = dict(read_table(directory / INDEX))
    attack(INDEX, pairs[name], lambda damaged: table_bytes((pairs | {name: damaged}).items()))


def test_a_damaged_name_is_read_or_refused(attack, directory):
    pairs = dict(read_table(directory / INDEX))
    value = pairs.pop(b"model/wpe")
    attack(INDEX, b"model/wpe", lambda damaged: table_bytes(sorted(({damaged: value} | pairs).items())))
