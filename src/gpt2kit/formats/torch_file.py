"""The files of torch.save: a pickle, and the storages that its tensors are views on. No torch, and nothing is run.

Zip (torch 1.6 and later), entries stored as they are, NAME being any:
    NAME/data.pkl | NAME/byteorder: "little" | NAME/data/KEY: one storage, at a multiple of 64 bytes | NAME/version: "3"
Stream (before), pickle after pickle:
    MAGIC | PROTOCOL | facts about the machine | what was saved | list of the keys of all storages
    then for each key: u64 count of elements | the elements
All numbers are little-endian. What torch.jit.save writes and the tar files of torch before 0.1.10 are refused by name.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gpt2kit.atomic import replacing
from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.mapped import mapped
from gpt2kit.formats.stored_zip import open_entries
from gpt2kit.formats.torch_pickle import MAX_PICKLE_BYTES, Pickles, Storage, StoredTensor, encode_object
from gpt2kit.progress import Progress, Report, silent

ZIP, MAGIC, PROTOCOL = b"PK\3\4", 0x1950A86A20F9469CFC6C, 1001
MAGIC_BYTES = MAGIC.to_bytes(10, "little")
TAR_AT, TAR = 257, b"ustar"
ALIGNMENT = 64  # what torch wants in order to map a storage
PADDING = 0x4246  # "FB", the extra field in which torch's writer puts zeros


def is_torch_file(path: Path) -> bool:
    """Whether the file `path` begins as torch.save's do."""
    with path.open("rb") as file:
        start = file.read(512)
    return (start.startswith(ZIP) and b"/data" in start) or MAGIC_BYTES in start[:32]


def read_object(path: Path) -> object:
    """What was saved, in dicts, lists, tuples, numbers and texts, with unread tensors, yet without names, as leaves.

    Every length is checked against the file's size. Raises FormatError where the file is damaged, or would run code.
    """
    storages = _Storages(path)
    with path.open("rb") as file:
        start = file.read(512)
        if start.startswith(ZIP):
            return _read_zip(path, file, storages)
        if MAGIC_BYTES in start[:32]:
            return _read_stream(path, file, storages)
    raise FormatError(path, 0, f"not a file of torch.save: {_guess(start)}")


def _guess(start: bytes) -> str:
    if start[TAR_AT:].startswith(TAR):
        return "a tar file of torch before 0.1.10; load it with that and save it again"
    if start.startswith(b"\x80"):
        return "a bare pickle, which only Python could read, and which may run code"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer to a file that Git LFS keeps; fetch it with: git lfs pull"
    return f"it starts with {start[:16]!r}" if start else "it is empty"


def named_tensors(found: object, path: Path) -> dict[str, LazyTensor]:
    """`found`, if it is a dict from names to tensors; the tensors now know their names."""
    if not isinstance(found, dict):
        raise FormatError(path, None, f"holds a {type(found).__name__}; expected a dict from names to tensors")
    tensors = {}
    for name, tensor in found.items():
        if not isinstance(name, str) or not name.isprintable() or not isinstance(tensor, LazyTensor):
            raise FormatError(path, None, f"holds a {type(tensor).__name__} as {name!r:.80}; expected a named tensor")
        tensors[name] = LazyTensor(name, tensor.dtype, tensor.shape, tensor.load)
    return tensors


class _Storages:
    """Where the storages of a file lie, and the tensors that are views on them."""

    def __init__(self, path: Path) -> None:
        self.path, self.places = path, dict[str, range]()
        self.used: set[Storage] = set()

    def tensor(self, view: StoredTensor) -> LazyTensor:
        self.used.add(view.storage)
        return LazyTensor("", view.storage.dtype, view.shape, partial(self.load, view))

    def check(self) -> None:
        for storage in self.used:
            place, size = self.places.get(storage.key), storage.elements * _numpy_type(storage).itemsize
            if place is None:
                raise FormatError(self.path, None, f"the storage {storage.key!r:.80} is missing, or compressed")
            if len(place) < size:
                raise FormatError(
                    self.path, place.start, f"the storage {storage.key!r:.80} has {len(place)} bytes, expected {size}"
                )

    def load(self, view: StoredTensor) -> np.ndarray:
        dtype = _numpy_type(view.storage)
        if 0 in view.shape:
            return np.empty(view.shape, dtype)
        count = 1 + sum((size - 1) * step for size, step in zip(view.shape, view.strides, strict=True))
        begin = self.places[view.storage.key].start + view.offset * dtype.itemsize
        if begin % dtype.itemsize:
            # The old stream puts storages anywhere; a mapping would make every sum over them slow.
            values = np.fromfile(self.path, dtype, count, offset=begin)
        else:
            values = mapped(self.path, dtype, begin, (count,))
        if values.size < count:
            raise TruncatedFile(self.path, begin, "the file is shorter than when it was opened")
        strides = [step * dtype.itemsize for step in view.strides]
        return np.lib.stride_tricks.as_strided(values, view.shape, strides, subok=True, writeable=False)


def _numpy_type(storage: Storage) -> np.dtype:
    return np.dtype("uint16" if storage.dtype == "bfloat16" else storage.dtype).newbyteorder("<")


def _read_zip(path: Path, file: BinaryIO, storages: _Storages) -> object:
    entries = open_entries(path, file)
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(
            path, 0, f"a zip archive with {len(pickles)} plain entries NAME/data.pkl; torch.save writes one"
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise FormatError(path, 0, "a program of torch.jit.save; save its state_dict() with torch.save")
    order = entries.get(f"{root}byteorder", range(0))
    file.seek(order.start)
    if file.read(min(len(order), 6)) not in (b"", b"little"):
        raise FormatError(path, order.start, "written on a big-endian machine; load it with torch and save it again")
    place = entries[pickles[0]]
    if len(place) > MAX_PICKLE_BYTES:
        raise FormatError(path, place.start, f"a pickle of {len(place)} bytes; at most {MAX_PICKLE_BYTES} are allowed")
    file.seek(place.start)
    found = Pickles(path, file.read(len(place)), place.start, storages.tensor).next()
    storages.places = {name.removeprefix(f"{root}data/"): place for name, place in entries.items()}
    storages.check()
    return found


def _read_stream(path: Path, file: BinaryIO, storages: _Storages) -> object:
    file.seek(0)
    pickles = Pickles(path, file.read(MAX_PICKLE_BYTES), 0, storages.tensor)
    if (pickles.next(), pickles.next()) != (MAGIC, PROTOCOL):
        raise FormatError(path, 0, f"starts with other numbers than torch.save writes, {MAGIC:x} and {PROTOCOL}")
    pickles.next()
    found, keys, at = pickles.next(), pickles.next(), pickles.end
    item_bytes = {storage.key: _numpy_type(storage).itemsize for storage in storages.used}
    size = file.seek(0, 2)
    for key in keys if isinstance(keys, list) else [None]:
        if not isinstance(key, str | int) or str(key) not in item_bytes:
            raise FormatError(path, at, "the list of storages names one that no tensor uses")
        file.seek(at)
        if len(count := file.read(8)) < 8:
            raise TruncatedFile(path, at, f"ends before the storage {key!r:.80}")
        end = at + 8 + struct.unpack("<Q", count)[0] * item_bytes[str(key)]
        if end > size:
            raise TruncatedFile(path, at, f"the storage {key!r:.80} goes on to byte {end}, but the file has {size}")
        storages.places[str(key)] = range(at + 8, end)
        at = end
    storages.check()
    return found


def write_object(value: Mapping[str, object], path: Path, report: Report = silent) -> None:
    """Write the zip in place of `path`: dicts, lists, texts, numbers, and tensors, of which one is in memory at a time.

    Tensors of the same `load` share a storage; none may be in a list.
    """
    storages: dict[Callable[[], np.ndarray], tuple[Storage, LazyTensor]] = {}

    def stored(value: object) -> object:
        if isinstance(value, Mapping):
            return {name: stored(inner) for name, inner in value.items()}
        if not isinstance(value, LazyTensor):
            return value
        new = Storage(str(len(storages)), value.dtype, math.prod(value.shape))
        storage, _ = storages.setdefault(value.load, (new, value))
        strides = tuple(math.prod(value.shape[axis + 1 :]) for axis in range(len(value.shape)))
        return StoredTensor(storage, 0, value.shape, strides)

    pickle = encode_object(stored(value))
    total, done = sum(tensor.size_bytes for _, tensor in storages.values()), 0
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in (("data.pkl", pickle), ("byteorder", b"little"), ("version", b"3\n")):
            _write_entry(archive, file, f"{path.stem}/{name}", memoryview(content))
        for storage, tensor in storages.values():
            _write_entry(archive, file, f"{path.stem}/data/{storage.key}", tensor.read_bytes())
            done += tensor.size_bytes
            report(Progress(f"write {path.name}", done, total, "byte"))


def _write_entry(archive: zipfile.ZipFile, file: BinaryIO, name: str, content: memoryview) -> None:
    entry = zipfile.ZipInfo(name)  # its date is 1980: the same tensors make the same file
    entry.create_system = 3  # the same on Windows as elsewhere
    large = content.nbytes > zipfile.ZIP64_LIMIT
    header_bytes = 30 + len(name.encode()) + 4 + 20 * large
    padding = -(file.tell() + header_bytes) % ALIGNMENT
    entry.extra = struct.pack("<HH", PADDING, padding) + bytes(padding)
    with archive.open(entry, "w", force_zip64=large) as target:
        target.write(content)
