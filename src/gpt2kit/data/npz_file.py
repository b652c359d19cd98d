"""nshepperd's encoded texts: an .npz of one-dimensional integer arrays arr_0, arr_1, ..., read and written as a stream.

Layout: a zip of .npy files, each "\\x93NUMPY", a version, a header that tells dtype and shape, then the values.
Source: numpy.lib.format; `np.savez_compressed(out, *token_chunks)` in nshepperd/gpt-2's encode.py.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy

from gpt2kit.errors import FormatError

IDS_A_BLOCK = 1 << 17
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class StoredArray:
    """One array; its blocks must be used up before the next array comes."""

    dtype: np.dtype[np.generic]
    size: int
    blocks: Iterator[np.ndarray]


def read_arrays(path: Path, vocab_size: int) -> Iterator[StoredArray]:
    """Every array in the order of the file, its values known to be below `vocab_size`.

    Raises:
        FormatError: the zip is damaged, an array is not one row of integers, or a value is no id of the vocabulary.
    """
    with _naming_damage(path), zipfile.ZipFile(path) as archive:
        if not archive.infolist():
            raise FormatError(path, None, "no array in this .npz")
        for entry in archive.infolist():
            with archive.open(entry) as member:
                dtype, size = _header(member, entry, path)
                yield StoredArray(dtype, size, _values(member, dtype, size, f"{path}, {entry.filename}", vocab_size))


def write_arrays(file: BinaryIO, arrays: Iterable[StoredArray]) -> None:
    """Write `arrays` as numpy's savez_compressed does, a block at a time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, array in enumerate(arrays):
            # A fixed date, as numpy gives it: the same ids make the same file.
            entry = zipfile.ZipInfo(f"arr_{number}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as member:
                header = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": (array.size,)}
                npy.write_array_header_1_0(member, header)
                for block in array.blocks:
                    member.write(block.astype(array.dtype).tobytes())


def _header(member: IO[bytes], entry: zipfile.ZipInfo, path: Path) -> tuple[np.dtype[np.generic], int]:
    place = f"{path}, {entry.filename}"
    version = npy.read_magic(member)
    if version not in HEADERS:
        raise FormatError(place, None, f"version {version} of .npy, expected one of {list(HEADERS)}")
    shape, _, dtype = HEADERS[version](member)
    if dtype.kind not in "iu" or len(shape) != 1:
        raise FormatError(place, None, f"an array of {dtype}, shape {shape}; expected one row of integers")
    if (found := entry.file_size - member.tell()) != shape[0] * dtype.itemsize:
        raise FormatError(place, None, f"promises {shape[0]:,} ids of {dtype}, but holds {found:,} bytes")
    return dtype, shape[0]


def _values(
    member: IO[bytes], dtype: np.dtype[np.generic], size: int, place: str, vocab_size: int
) -> Iterator[np.ndarray]:
    for start in range(0, size, IDS_A_BLOCK):
        count = min(IDS_A_BLOCK, size - start)
        block = np.frombuffer(member.read(count * dtype.itemsize), dtype)
        if block.size != count:
            raise FormatError(place, None, f"ends after {start + block.size:,} of {size:,} ids")
        outside = block[(block < 0) | (block >= vocab_size)]
        if outside.size:
            raise FormatError(place, None, f"holds the id {outside[0]}; the vocabulary has only {vocab_size:,}")
        yield block


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """What zipfile and numpy raise for damaged files: RuntimeError is for encryption, OSError for a false offset."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError) as error:
        raise FormatError(path, None, f"not a whole .npz: {error}") from None
