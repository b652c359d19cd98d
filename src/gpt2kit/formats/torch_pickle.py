"""The pickle inside a torch file, read without calling anything, and written for torch to read.

A pickle is a program for a machine with a stack and a memo. Python's own machine calls what the program names; this one
knows only the steps that torch.save makes of tensors, numbers, texts, lists, tuples and dicts, and builds descriptions:
    GLOBAL "torch FloatStorage" ...               a symbol, never looked up
    BINPERSID ("storage", symbol, key, where, n)  a `Storage`: n numbers that lie elsewhere in the file, under `key`
    REDUCE torch._utils._rebuild_tensor_v2 (storage, offset, shape, strides, ...)  a `StoredTensor`
    REDUCE collections.OrderedDict                a dict; its attributes (BUILD: _metadata) are dropped
Everything else is refused by name. The steps are those of pickle protocol 2, which is torch's, and what 3 to 5 have for
the same values.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.errors import FormatError, TruncatedFile

# Far beyond any checkpoint: one of GPT-2 XL with its optimizer takes 400 KB and 80,000 steps.
MAX_PICKLE_BYTES, MAX_STEPS = 2**24, 500_000
MAX_DIMS, MAX_ARGUMENTS, MAX_KEY, MAX_NUMBER = 8, 8, 1000, 2**48
MAX_REPEATED = 2**20  # elements of a view that is larger than its storage
# Storage classes of torch and the types we name so; bfloat16 has no numpy type.
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
STORAGE_OF = {dtype: storage for storage, dtype in STORAGES.items()}
REFUSED = "files that would run code are refused; where this one can be trusted, save its state_dict() alone again"

# Steps that push their argument as it is, a constant, or something new and empty.
ARGUMENTS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
}
MARK = object()
CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": MARK}
EMPTY: dict[str, Callable[[], object]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that Python's machine would import."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers, kept outside the pickle."""

    key: str
    dtype: str
    elements: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A view on a storage; `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Pickles:
    """Pickles that follow each other in a file, in `content`, which begins at its byte `start`."""

    def __init__(self, path: Path, content: bytes, start: int, place: Callable[[StoredTensor], object]) -> None:
        """`place` makes what the result holds where a tensor was."""
        self.path, self.start, self.place = path, start, place
        self.stream, self.size = io.BytesIO(content), len(content)

    @property
    def end(self) -> int:
        """The byte of the file after the last pickle that was read."""
        return self.start + self.stream.tell()

    def next(self) -> object:
        """What the next pickle describes, in dicts, lists, tuples, numbers, texts and bytes; types are symbols.

        Lists and dicts may hold themselves. Raises FormatError for steps and names that are not known here.
        """
        machine, begin = _Machine(self.path, self.place), self.end
        try:
            for step, argument, at in pickletools.genops(self.stream):
                machine.at = self.start + (at or 0)
                machine.do(step.name, argument)
        except ValueError as error:
            if self.stream.tell() == self.size == MAX_PICKLE_BYTES:
                raise FormatError(self.path, begin, f"a pickle of more than {self.size} bytes") from None
            if self.stream.tell() == self.size:
                raise TruncatedFile(self.path, self.end, f"ends inside the pickle that begins at {begin}") from None
            raise FormatError(self.path, machine.at, f"not a pickle: {error!s:.120}") from None
        return machine.result


class _Machine:
    def __init__(self, path: Path, place: Callable[[StoredTensor], object]) -> None:
        self.path, self.place, self.at, self.steps = path, place, 0, 0
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.result: object = None

    def error(self, problem: str) -> FormatError:
        return FormatError(self.path, self.at, problem)

    def do(self, step: str, argument: object) -> None:
        self.count(1)
        if step in ARGUMENTS:
            self.stack.append(argument)
        elif step in CONSTANTS:
            self.stack.append(CONSTANTS[step])
        elif step in EMPTY:
            self.stack.append(EMPTY[step]())
        elif step in STEPS:
            STEPS[step](self, argument)
        else:
            raise self.error(f"the pickle takes the step {step}, which weights do not need; {REFUSED}")

    def count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise self.error(f"a pickle of more than {MAX_STEPS} steps; a checkpoint has some ten thousand")

    def pop(self) -> object:
        if not self.stack or self.stack[-1] is MARK:
            raise self.error("a step of the pickle takes more than there is")
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        items: list[object] = []
        while self.stack and self.stack[-1] is not MARK:
            items.append(self.stack.pop())
        if not self.stack:
            raise self.error("a step of the pickle looks for a mark, and none was set")
        self.stack.pop()
        return items[::-1]

    def top(self) -> object:
        self.stack.append(top := self.pop())
        return top

    def extend(self, items: list[object]) -> None:
        if not isinstance(target := self.top(), list):
            raise self.error(f"the pickle appends to {_kind(target)}; expected a list")
        target.extend(items)

    def update(self, items: list[object]) -> None:
        if not isinstance(target := self.top(), dict) or len(items) % 2:
            raise self.error(f"the pickle sets {len(items)} keys and values of {_kind(target)}; expected a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys can be made to hash alike, or to take long to hash or to compare.
            short = len(key) <= MAX_KEY if isinstance(key, str) else isinstance(key, int) and abs(key) <= MAX_NUMBER
            if not short and key is not None:
                raise self.error(f"a key is {_kind(key)}; expected a short text or a small number")
            target[key] = value

    def put(self, number: object) -> None:
        assert isinstance(number, int)
        self.memo[number] = self.top()

    def get(self, number: object) -> None:
        assert isinstance(number, int)
        if number not in self.memo:
            raise self.error(f"the pickle asks for its memo {number}, which is empty")
        self.stack.append(self.memo[number])

    def collect(self, size: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(size)][::-1]))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.update([key, value])

    def name(self, module: object, name: object) -> None:
        symbol = Symbol(str(module)[:80], str(name)[:80])
        if symbol not in BUILDERS and not (symbol.module == "torch" and symbol.name in {*STORAGES, *STORAGE_OF}):
            raise self.error(f"the pickle names {_kind(symbol)!r}, which weights do not need; {REFUSED}")
        self.stack.append(symbol)

    def name_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise self.error(f"the pickle names something by {_kind(module)} and {_kind(name)}; expected two texts")
        self.name(module, name)

    def refer(self) -> None:
        match self.pop():
            # Storages that were views of others left a sixth value that is not None; torch 0.4 did away with them.
            case ("storage", Symbol("torch", name), str() | int() as key, _, int() as elements, *view) if (
                name in STORAGES and 0 <= elements <= MAX_NUMBER and len(str(key)) <= MAX_KEY and view in ([], [None])
            ):
                self.stack.append(Storage(str(key), STORAGES[name], elements))
            case _:
                raise self.error(
                    f"the pickle refers to something that is not a storage; known are {', '.join(STORAGES)}"
                )

    def call(self) -> None:
        arguments, symbol = self.pop(), self.pop()
        if not isinstance(symbol, Symbol) or symbol not in BUILDERS or not isinstance(arguments, tuple):
            raise self.error(f"the pickle would call {_kind(symbol)}; {REFUSED}")
        self.stack.append(BUILDERS[symbol](self, *arguments[:MAX_ARGUMENTS]))

    def set_attributes(self) -> None:
        self.pop()
        if not isinstance(target := self.top(), dict):
            raise self.error(f"the pickle sets attributes of {_kind(target)}; {REFUSED}")

    def finish(self) -> None:
        self.result = self.pop()

    # --- what stands for the functions of torch ---

    def tensor(self, *arguments: object) -> object:
        storage, offset, shape, strides, _, _, flags = (*arguments, *[None] * 7)[:7]
        if not isinstance(storage, Storage) or flags:
            raise self.error(f"a tensor on {_kind(storage)}, or with flags; expected a plain storage")
        (first,), sizes, steps = self.numbers((offset,)), self.numbers(shape), self.numbers(strides)
        if len(sizes) != len(steps):
            raise self.error(f"a tensor of shape {sizes} and strides {steps}; expected equally many")
        last = first + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if 0 not in sizes and last >= storage.elements:
            raise self.error(f"a tensor reaches element {last} of a storage of {storage.elements}")
        if math.prod(max(size, 1) for size in sizes) > max(storage.elements, MAX_REPEATED):
            raise self.error(f"a tensor of shape {sizes} repeats a storage of {storage.elements} elements too often")
        return self.place(StoredTensor(storage, first, sizes, steps))

    def numbers(self, found: object) -> tuple[int, ...]:
        if isinstance(found, tuple) and len(found) <= MAX_DIMS:
            numbers = tuple(number for number in found if isinstance(number, int) and 0 <= number <= MAX_NUMBER)
            if len(numbers) == len(found):
                return numbers
        raise self.error(f"a tensor's offset, shape and strides must be up to {MAX_DIMS} whole numbers from 0")

    def first(self, argument: object = None, *_: object) -> object:
        return argument

    def mapping(self, pairs: object = (), *_: object) -> object:
        """Python 2 hands over a list of pairs, Python 3 sets them later."""
        if not isinstance(pairs, list | tuple):
            raise self.error(f"the pickle makes an OrderedDict of {_kind(pairs)}; expected pairs")
        self.count(len(pairs))
        made: dict[object, object] = {}
        self.stack.append(made)
        for pair in pairs:
            self.update(pair if isinstance(pair, list) and len(pair) == 2 else [pair])
        self.stack.pop()
        return made


STEPS: dict[str, Callable[[_Machine, object], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: machine.finish(),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.collect(1),
    "TUPLE2": lambda machine, _: machine.collect(2),
    "TUPLE3": lambda machine, _: machine.collect(3),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_item(),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_to_mark()),
    "GLOBAL": lambda machine, named: machine.name(*str(named).split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name_from_stack(),
    "BINPERSID": lambda machine, _: machine.refer(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.set_attributes(),
}
BUILDERS: dict[Symbol, Callable[..., object]] = {
    Symbol("torch._utils", "_rebuild_tensor"): _Machine.tensor,
    Symbol("torch._utils", "_rebuild_tensor_v2"): _Machine.tensor,
    Symbol("torch._utils", "_rebuild_parameter"): _Machine.first,
    Symbol("torch._utils", "_rebuild_parameter_with_state"): _Machine.first,
    Symbol("torch", "Size"): _Machine.first,
    Symbol("torch", "device"): _Machine.first,
    Symbol("collections", "OrderedDict"): _Machine.mapping,
}


def _kind(found: object) -> str:
    return f"{found.module}.{found.name}" if isinstance(found, Symbol) else f"a {type(found).__name__}"


# --- writing ---


def encode_object(value: object) -> bytes:
    """The pickle, protocol 2, of dicts, lists, texts, numbers, tensors; every torch reads it, with weights_only too."""
    return b"\x80\x02" + _encode_any(value) + b"."


def _encode_any(value: object) -> bytes:
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_encode_any(part) for pair in value.items() for part in pair) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_encode_any, value)) + b"e"
    if isinstance(value, StoredTensor):
        return _encode_tensor(value)
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, float):
        return struct.pack(">cd", b"G", value)
    assert isinstance(value, str | int), f"{type(value).__name__} is not written"
    return _encode(value)


def _encode_tensor(tensor: StoredTensor) -> bytes:
    storage = tensor.storage
    symbol = b"ctorch\n" + STORAGE_OF[storage.dtype].encode() + b"\n"
    reference = b"(" + _encode("storage") + symbol + _encode(storage.key, "cpu", storage.elements) + b"tQ"
    view = _encode(tensor.offset) + b"".join(
        b"(" + _encode(*numbers) + b"t" for numbers in (tensor.shape, tensor.strides)
    )
    no_gradient_no_hooks = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + view + no_gradient_no_hooks + b"tR"


def _encode(*values: str | int) -> bytes:
    """BINUNICODE for texts, LONG1 for numbers."""
    encoded = b""
    for value in values:
        if isinstance(value, str):
            text = value.encode()
            encoded += struct.pack("<cI", b"X", len(text)) + text
        else:
            size = value.bit_length() // 8 + 1
            encoded += struct.pack("<cB", b"\x8a", size) + value.to_bytes(size, "little", signed=True)
    return encoded
