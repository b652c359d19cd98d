"""ONNX's file: a graph of operators, and named tensors in it or beside it. Tensors stay on disk until they are read.

Protocol buffers (github.com/onnx/onnx, onnx/onnx.proto), the fields that count here:
    model   1 version of this layout | 7 graph | 8 operator set
    graph   1 node | 5 tensor | 11 input | 12 output
    tensor  1 dimension, of each or all in one | 2 type | 8 name | its values, little-endian, the last axis first:
            9 as bytes, or 4 float32, 10 float64 | or 14 is 1, and 13 {1 key | 2 text} has location (a file beside this
            one), offset (0 unless told) and length
A message must not reach 2 GB, so the tensors of a larger model lie in a file beside it, FILE_data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gpt2kit.atomic import replacing
from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.mapped import MAX_DIMS, MAX_ELEMENTS, mapped
from gpt2kit.formats.protobuf import bytes_field, fields_within, number_field, read_varint, varint
from gpt2kit.progress import Progress, Report, silent

GRAPH, TENSOR = 7, 5
DIMENSION, TYPE, NAME, RAW, EXTERNAL, LOCATION = 1, 2, 8, 9, 13, 14
FLOAT32, FLOAT64 = 1, 11
# Values of these types may also stand as numbers, all in one field.
AS_NUMBERS = {4: FLOAT32, 10: FLOAT64}
# bfloat16 has no numpy type; its bits travel as uint16.
STORED = {
    FLOAT32: ("float32", "<f4"),
    2: ("uint8", "|u1"),
    3: ("int8", "|i1"),
    6: ("int32", "<i4"),
    7: ("int64", "<i8"),
    9: ("bool", "|b1"),
    10: ("float16", "<f2"),
    FLOAT64: ("float64", "<f8"),
    16: ("bfloat16", "<u2"),
}
TYPES = {dtype: number for number, (dtype, _) in STORED.items()}
MAX_FIELDS = 200_000  # GPT-2 XL as optimum exports it has some 20,000
MAX_TEXT_BYTES = 10_000  # of one name
LARGEST_BYTES = 1_500_000_000  # of all tensors, for them to stand in the model itself
WHOLE = re.compile(r"[0-9]{1,18}")
PAGE_BYTES = 4096  # where tensors beside the model begin, so that they can be mapped


def open_tensors(path: Path) -> dict[str, LazyTensor]:
    """Every named tensor of the graph, unread, after every place was checked against the size of its file.

    What has no numpy type, or stands number by number, has a dtype that is no numpy name, and is refused when read.
    """
    size = path.stat().st_size
    walk = _Walk(mapped(path, np.uint8, 0, (size,)).data if size else memoryview(b""))
    try:
        graphs = list(walk.messages(slice(0, size), GRAPH))
        stored = [_Tensor(walk, place) for graph in graphs for place in walk.messages(graph, TENSOR)]
    except ValueError as error:
        raise FormatError(path, None, f"no ONNX model, or a damaged one: {error}") from None
    if not stored:
        raise FormatError(path, None, "no ONNX model, or one without tensors")
    beside = {file.name: file for file in path.parent.iterdir() if file.is_file()}
    tensors: dict[str, LazyTensor] = {}
    for each in stored:
        if each.name in tensors:
            raise FormatError(path, None, f"two tensors are called {each.name:.200}")
        tensors[each.name] = each.lazy(path, beside)
    return tensors


def write_model(
    model: bytes, graph: bytes, tensors: Mapping[str, LazyTensor], path: Path, report: Report = silent
) -> None:
    """Write the file in place of `path`, one of its tensors in memory at a time.

    Args:
        model: the fields of the model, but the graph.
        graph: the fields of the graph, but these tensors.
        tensors: by the names that nodes know them by.
        path: where to; the tensors of a large model go to a file of this name and "_data", which comes first.
        report: told how far it is, in bytes.
    """
    total = sum(tensor.size_bytes for tensor in tensors.values())
    beside = total > LARGEST_BYTES
    places = _write_beside(tensors, path.with_name(f"{path.name}_data"), total, report) if beside else {}
    heads = {name: _head(name, tensor) + places.get(name, b"") for name, tensor in tensors.items()}
    if not beside:
        heads = {name: head + _opening(RAW, tensors[name].size_bytes) for name, head in heads.items()}
    inside_bytes = {name: len(head) + (0 if beside else tensors[name].size_bytes) for name, head in heads.items()}
    graph_bytes = len(graph) + sum(len(_opening(TENSOR, size)) + size for size in inside_bytes.values())
    with replacing(path) as file:
        file.write(model + _opening(GRAPH, graph_bytes) + graph)
        for name, head in heads.items():
            file.write(_opening(TENSOR, inside_bytes[name]) + head)
            if not beside:
                file.write(tensors[name].read_bytes())
                report(Progress(f"write {path.name}", file.tell(), len(model) + graph_bytes, "byte"))


def _head(name: str, tensor: LazyTensor) -> bytes:
    dimensions = b"".join(number_field(DIMENSION, length) for length in tensor.shape)
    return dimensions + number_field(TYPE, TYPES[tensor.dtype]) + bytes_field(NAME, name.encode())


def _opening(number: int, size: int) -> bytes:
    """The beginning of a field of `size` bytes."""
    return bytes_field(number, b"")[:-1] + varint(size)


def _write_beside(tensors: Mapping[str, LazyTensor], path: Path, total: int, report: Report) -> dict[str, bytes]:
    """Write the tensors one after the other, and return the fields that tell where each is."""
    places, done = {}, 0
    with replacing(path) as file:
        for name, tensor in tensors.items():
            file.write(bytes(-file.tell() % PAGE_BYTES))
            told = {"location": path.name, "offset": file.tell(), "length": tensor.size_bytes}
            entries = [
                bytes_field(1, key.encode()) + bytes_field(2, str(value).encode()) for key, value in told.items()
            ]
            places[name] = b"".join(bytes_field(EXTERNAL, entry) for entry in entries) + number_field(LOCATION, 1)
            file.write(tensor.read_bytes())
            done += tensor.size_bytes
            report(Progress(f"write {path.name}", done, total, "byte"))
    return places


class _Walk:
    """A file whose messages are walked through, and how many fields it may still have. All raise ValueError."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.left = content, MAX_FIELDS

    def fields(self, place: slice) -> Iterator[tuple[int, int | slice]]:
        for found in fields_within(self.content, place.start, place.stop):
            self._count()
            yield found

    def messages(self, place: slice, wanted: int) -> Iterator[slice]:
        """Where the messages of one number are."""
        return (value for number, value in self.fields(place) if number == wanted and isinstance(value, slice))

    def text(self, place: slice) -> str:
        if place.stop - place.start > MAX_TEXT_BYTES:
            raise ValueError(f"a name of {place.stop - place.start:,} bytes")
        return bytes(self.content[place]).decode()

    def numbers(self, place: slice) -> Iterator[int]:
        at = place.start
        while at < place.stop:
            self._count()
            number, at = read_varint(self.content, at, place.stop)
            yield number

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"it has more than {MAX_FIELDS:,} fields")


class _Tensor:
    """What a graph says of one tensor. Raises ValueError where that is not well formed."""

    def __init__(self, walk: _Walk, place: slice) -> None:
        self.name, self.type, self.is_beside = "", 0, False
        self.values: list[tuple[int, slice]] = []
        self.told: dict[str, str] = {}  # about values beside the model
        shape: list[int] = []
        for number, value in walk.fields(place):
            if isinstance(value, slice):
                if number == DIMENSION:
                    shape += walk.numbers(value)
                elif number == NAME:
                    self.name = walk.text(value)
                elif number == RAW or number in AS_NUMBERS:
                    self.values.append((number, value))
                elif number == EXTERNAL:
                    texts = {part: walk.text(text) for part, text in walk.fields(value) if isinstance(text, slice)}
                    self.told[texts.get(1, "")] = texts.get(2, "")
            elif number == DIMENSION:
                shape.append(value)
            elif number == TYPE:
                self.type = value
            elif number == LOCATION:
                self.is_beside = value == 1
        if len(shape) > MAX_DIMS or math.prod(max(length, 1) for length in shape) > MAX_ELEMENTS:
            raise ValueError(
                f"the tensor {self.name:.80} claims {len(shape)} dimensions, or over {MAX_ELEMENTS} elements"
            )
        self.shape = tuple(shape)

    def lazy(self, path: Path, beside: Mapping[str, Path]) -> LazyTensor:
        """The tensor, of the model at `path`; `beside` are the files that may hold its values, by name."""
        dtype, storage = STORED.get(self.type, (f"ONNX's type {self.type}", None))
        if storage is None:
            return self._unreadable(path, dtype)
        size = math.prod(self.shape) * np.dtype(storage).itemsize
        if self.is_beside:
            file, offset, found = self._place_beside(path, beside, size)
        elif len(self.values) == 1 and AS_NUMBERS.get(self.values[0][0], self.type) == self.type:
            place = self.values[0][1]
            file, offset, found = path, place.start, place.stop - place.start
        else:
            return self._unreadable(path, f"{dtype} number by number")
        if found != size:
            raise FormatError(path, None, f"{self.name:.80} {self.shape} {dtype} takes {size} bytes, but has {found}")

        def load() -> np.ndarray:
            values = mapped(file, storage, offset, self.shape)
            return values if values.flags.aligned else values.copy()

        return LazyTensor(self.name, dtype, self.shape, load)

    def _unreadable(self, path: Path, dtype: str) -> LazyTensor:
        def refuse() -> np.ndarray:
            raise FormatError(path, None, f"{self.name:.80} is stored as {dtype}, which cannot be read")

        return LazyTensor(self.name, dtype, self.shape, refuse)

    def _place_beside(self, path: Path, beside: Mapping[str, Path], size: int) -> tuple[Path, int, int]:
        location = self.told.get("location", "")
        # A name that leads elsewhere is an attack, not a file of this model.
        if location not in beside:
            raise FormatError(
                path,
                None,
                f"{self.name:.80} lies in {location!r:.80}, missing; expected a file in the same directory: fetch it",
            )
        numbers = {"offset": 0, "length": size}
        for key in numbers.keys() & self.told.keys():
            if not WHOLE.fullmatch(self.told[key]):
                raise FormatError(path, None, f"{self.name:.80}: {key} is {self.told[key]!r:.80}; expected a number")
            numbers[key] = int(self.told[key])
        file, end = beside[location], numbers["offset"] + numbers["length"]
        if end > (file_bytes := file.stat().st_size):
            raise TruncatedFile(file, file_bytes, f"the file ends {end - file_bytes} bytes before {self.name:.80} does")
        return file, numbers["offset"], numbers["length"]
