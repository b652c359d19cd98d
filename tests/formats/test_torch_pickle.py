import os
import pickle
import time
import tracemalloc
from collections import Counter, OrderedDict
from fractions import Fraction
from pathlib import Path

import pytest

from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats.torch_pickle import Pickles, Storage, StoredTensor, Symbol, encode_object

HERE = Path("data.pkl")
# Written by hand from the opcodes in Python's pickletools, as torch.save writes a view on a storage of 12 floats.
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00aX\x03\x00\x00\x00cpuK\x0ctQ"
VIEW = (
    b"ctorch._utils\n_rebuild_tensor_v2\n("
    + STORAGE
    + b"K\x02K\x02K\x03\x86K\x04K\x01\x86\x89ccollections\nOrderedDict\n)RtR"
)
PLAIN = {
    "a": [1, -1, 2**31, -(2**31), 2**40, -(2**40), 0.5, True, False, None, "text", "ä", b"bytes"],
    1: {"b": (), "c": (1,), "d": (1, 2), "e": (1, 2, 3), "f": (1, 2, 3, 4), "g": {}, "h": []},
}


def read(content):
    return Pickles(HERE, content, 0, lambda tensor: tensor).next()


def pickled(*steps):
    return b"\x80\x02" + b"".join(steps) + b"."


# --- what is read ---


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_are_read_as_python_reads_them(protocol):
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize("value", [OrderedDict(a=1, b=OrderedDict()), {"a": [1], 2: "b"}, ["same", "same"]], ids=str)
def test_protocol_2_is_read_as_python_reads_it(value):
    assert read(pickle.dumps(value, 2)) == value


def test_a_tensor_is_described_and_not_made():
    assert read(pickled(VIEW)) == StoredTensor(Storage("a", "float32", 12), offset=2, shape=(2, 3), strides=(4, 1))


def test_the_first_way_to_write_tensors_is_read():
    first = b"ctorch._utils\n_rebuild_tensor\n(" + STORAGE + b"K\x00K\x0c\x85K\x01\x85tR"
    assert read(pickled(first)) == StoredTensor(Storage("a", "float32", 12), 0, (12,), (1,))


def test_a_parameter_is_its_tensor():
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + VIEW + b"\x88ccollections\nOrderedDict\n)RtR"
    assert read(pickled(parameter)) == read(pickled(VIEW))


def test_texts_of_python_2_are_read():
    assert read(pickled(b"U\x02abT\x03\x00\x00\x00def\x86")) == ("ab", "def")


def test_an_ordered_dict_of_python_2_is_read():
    pairs = b"](](U\x01aK\x01e](U\x01bK\x02ee"
    assert read(pickled(b"ccollections\nOrderedDict\n", pairs, b"\x85R")) == {"a": 1, "b": 2}


def test_attributes_of_a_dict_are_dropped():
    state = OrderedDict(a=1)
    state._metadata = {"version": 1}
    assert read(pickle.dumps(state, 2)) == {"a": 1}


def test_shapes_and_devices_are_plain_values():
    assert read(pickled(b"ctorch\nSize\nK\x02K\x03\x86\x85Rctorch\ndevice\nU\x03cpu\x85R\x86")) == ((2, 3), "cpu")


def test_a_type_is_a_symbol():
    assert read(pickled(b"ctorch\nbfloat16\n")) == Symbol("torch", "bfloat16")


def test_a_list_that_holds_itself_is_read():
    knot = []
    knot.append(knot)
    found = read(pickle.dumps(knot, 2))
    assert found[0] is found


def test_pickles_follow_each_other():
    content = pickle.dumps(1, 2) + pickle.dumps("b", 2) + b"rest"
    pickles = Pickles(HERE, content, 100, lambda tensor: tensor)
    assert (pickles.next(), pickles.next(), pickles.end) == (1, "b", 100 + len(content) - 4)


def test_what_we_write_python_reads_step_for_step():
    tensor = StoredTensor(Storage("7", "bfloat16", 2**33), 2**32, (2**31, 1), (1, 1))
    assert read(encode_object({"a": tensor, "b": tensor})) == {"a": tensor, "b": tensor}


# --- what is refused ---


class Harmful:
    def __reduce__(self):
        return os.system, ("touch gpt2kit_PWNED_marker",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_is_refused_and_does_not(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=r"which weights do not need; files that would run code are refused"):
        read(pickle.dumps({"a": Harmful()}, protocol))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [Fraction(1, 2), Counter("a"), 1j, {1, 2}, Path("a"), print], ids=repr)
def test_other_classes_are_refused(value):
    with pytest.raises(FormatError, match="files that would run code are refused"):
        read(pickle.dumps(value, 4))


def test_a_name_is_told_with_its_place():
    with pytest.raises(FormatError, match=r"^data.pkl: the pickle names 'posix.system', .* \(at byte 3\)$"):
        read(pickled(b"}cposix\nsystem\n)R"))


def test_a_step_is_told_with_its_place():
    with pytest.raises(FormatError, match=r"^data.pkl: the pickle takes the step INST, .* \(at byte 3\)$"):
        read(pickled(b"(iposix\nsystem\n"))


# Each is a few bytes that stand for a call, or for more than there is.
BROKEN = {
    "a call of what is no symbol": (b"U\x01a)R", "would call a str"),
    "a call without a tuple": (b"ctorch\nSize\nK\x01R", "would call torch.Size"),
    "a call of a storage class": (b"ctorch\nFloatStorage\n)R", "would call torch.FloatStorage"),
    "a new object": (b"ccollections\nOrderedDict\n)\x81", "step NEWOBJ"),
    "attributes of a list": (b"]}b", "sets attributes of a list"),
    "a symbol made of numbers": (b"K\x01K\x02\x93", "names something by a int and a int"),
    "a number of any length": (b"\x8b\x04\x00\x00\x00abcd", "step LONG4"),
    "an empty stack": (b"0", "step POP"),
    "nothing to collect": (b"\x85", "takes more than there is"),
    "a tuple across a mark": (b"K\x01(K\x02\x86", "takes more than there is"),
    "no mark": (b"K\x01t", "looks for a mark"),
    "an empty memo": (b"h\x05", "memo 5, which is empty"),
    "values of a list": (b"](K\x01K\x02u", "2 keys and values of a list"),
    "a key without a value": (b"}(K\x01u", "1 keys and values of a dict"),
    "an item of a dict": (b"}K\x01a", "appends to a dict"),
    "a dict of one": (b"ccollections\nOrderedDict\n](K\x01e\x85R", "1 keys and values of a dict"),
    "a dict of a number": (b"ccollections\nOrderedDict\nK\x01\x85R", "an OrderedDict of a int"),
    "a tuple as key": (b"}(K\x01\x85K\x01u", "a key is a tuple"),
    "a large number as key": (b"}(\x8a\x07abcdefgK\x01u", "a key is a int"),
    "a long text as key": (b"}(X\xe9\x03\0\0" + b"a" * 1001 + b"K\x01u", "a key is a str"),
    "a storage with a long key": (
        STORAGE.replace(b"X\x01\0\0\0a", b"X\xe9\x03\0\0" + b"a" * 1001),
        "not a storage",
    ),
    "a storage that is a number": (b"K\x01Q", "not a storage"),
    "a storage of a type": (STORAGE.replace(b"FloatStorage", b"float32"), "not a storage"),
    "a storage of negative size": (STORAGE.replace(b"K\x0ct", b"J\xff\xff\xff\xfft"), "not a storage"),
    "a storage that is a view": (STORAGE.replace(b"K\x0ct", b"K\x0cK\x01t"), "not a storage"),
    "a tensor on nothing": (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "a tensor on a NoneType"),
    "a tensor of a text": (VIEW.replace(b"K\x02K\x02K\x03\x86", b"K\x02U\x01a"), "up to 8 whole numbers from 0"),
    "a negative shape": (
        VIEW.replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\xffK\x03\x86"),
        "up to 8 whole numbers from 0",
    ),
    "a negative stride": (VIEW.replace(b"K\x04K\x01", b"K\x04J\xff\xff\xff\xff"), "up to 8 whole numbers from 0"),
    "nine dimensions": (VIEW.replace(b"K\x02K\x03\x86", b"(" + b"K\x01" * 9 + b"t"), "up to 8 whole numbers from 0"),
    "strides that are too many": (VIEW.replace(b"K\x04K\x01\x86", b"K\x04K\x01K\x01\x87"), "expected equally many"),
    "an offset that reaches out": (VIEW.replace(b"tQK\x02", b"tQK\x08"), "reaches element 14 of a storage of 12"),
    "strides that reach out": (
        VIEW.replace(b"K\x04K\x01\x86", b"K\x08K\x01\x86"),
        "reaches element 12 of a storage of 12",
    ),
    "a shape of 2**40": (VIEW.replace(b"K\x02K\x03", b"\x8a\x06\0\0\0\0\0\1K\x03"), "reaches element"),
    "a tensor without end": (
        VIEW.replace(b"K\x02K\x03\x86K\x04K\x01\x86", b"\x8a\x06\0\0\0\0\0\1\x85K\x00\x85"),
        "repeats a storage of 12 elements too often",
    ),
    "a tensor of nothing, but much": (
        VIEW.replace(b"K\x02K\x03\x86", b"K\x00\x8a\x06\0\0\0\0\0\1\x86"),
        "repeats a storage of 12 elements too often",
    ),
    "a tensor with flags": (VIEW[:-2] + b"}(U\x03negK\x01utR", "with flags"),
    "no step": (b"\xff", "not a pickle"),
    "text that is not UTF-8": (b"X\x01\x00\x00\x00\xff", "not a pickle"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_pickles_are_refused(case):
    steps, problem = BROKEN[case]
    with pytest.raises(FormatError, match=problem.replace("**", r"\*\*")):
        read(pickled(steps))


def test_every_cut_is_noticed():
    for length in range(len(pickled(VIEW))):
        with pytest.raises(TruncatedFile, match=r"^data.pkl: ends inside the pickle that begins at 0"):
            read(pickled(VIEW)[:length])


@pytest.mark.parametrize(
    "opcode", [b"X\xff\xff\xff\xff", b"B\xff\xff\xff\xff", b"T\xff\xff\xff\x7f", b"\x95" + b"\xff" * 8]
)
def test_a_length_beyond_the_end_takes_no_memory(opcode):
    tracemalloc.start()
    with pytest.raises(FormatError):
        read(pickled(opcode))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


# --- what would take for ever ---

LONG_LIST = b"](" + b"](U\x01aK\x01e" * 100_000 + b"eq\x00"
BOMBS = {
    "half a million steps": b"N" * 500_001,
    "a long list made a dict again and again": LONG_LIST
    + b"ccollections\nOrderedDict\nq\x01"
    + b"h\x01h\x00\x85R" * 50_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_work_without_end_is_refused(bomb):
    began = time.monotonic()
    with pytest.raises(FormatError, match="more than 500000 steps"):
        read(pickled(BOMBS[bomb]))
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_deep_nesting_is_read():
    deep = read(pickled(b")" + b"\x85" * 400_000))
    assert isinstance(deep, tuple)


def test_a_value_that_doubles_a_hundred_times_takes_a_hundred_steps():
    doubling = b"".join(b"q%ch%c\x86" % (n, n) for n in range(100))
    assert len(read(pickled(b"N" + doubling))) == 2
