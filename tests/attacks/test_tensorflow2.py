"""TensorFlow 2's objects, forged under right checksums: graphs that lead nowhere, in circles, or to another model."""

import shutil
import warnings

import pytest

from gpt2kit.errors import FormatError, Gpt2kitError, WeightMismatch
from gpt2kit.formats import tensorflow2
from gpt2kit.formats.protobuf import Message, bytes_field, fixed32_field, number_field, varint
from gpt2kit.formats.sorted_table import masked_crc32c, read_table, table_bytes
from gpt2kit.formats.tensor_bundle import read_string

OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"


@pytest.fixture
def directory(golden, tmp_path):
    """A good model that may be damaged."""
    return shutil.copytree(golden / "tf2" / "checkpoint", tmp_path / "model")


@pytest.fixture
def forge(directory):
    """forge(graph): put another graph of objects into the model."""
    index, data = directory / "ckpt-1.index", directory / "ckpt-1.data-00000-of-00001"
    pairs, good = dict(read_table(index)), data.read_bytes()

    def forged(graph):
        length = len(graph).to_bytes(4, "little")
        stored = masked_crc32c(length).to_bytes(4, "little") + graph
        content = varint(len(graph)) + stored
        place = number_field(4, len(good)) + number_field(5, len(content))
        crc = fixed32_field(6, masked_crc32c(length + stored))
        pairs[OBJECTS.encode()] = number_field(1, 7) + bytes_field(2, b"") + place + crc
        data.write_bytes(good + content)
        index.write_bytes(table_bytes(sorted(pairs.items())))

    return forged


@pytest.fixture
def graph(directory):
    return read_string(directory / "ckpt-1", OBJECTS)


def child(number, name):
    return bytes_field(1, number_field(1, number) + bytes_field(2, name.encode()))


def test_the_same_graph_is_read(directory, forge, graph):
    forge(graph)
    assert len(tensorflow2.read(directory).tensors) == 28


def test_a_second_gpt2_is_refused(directory, forge, graph):
    forge(graph + bytes_field(1, b"".join(child(0, name) for name in ("wte", "wpe", "h", "ln_f"))))
    with pytest.raises(WeightMismatch, match=r"holds 2 GPT-2s; expected one\. At its root are model, save_counter"):
        tensorflow2.read(directory)


def test_a_classifier_is_refused(directory, forge, graph):
    objects = [dict(children(each)) for each in Message(graph).parts(1)]
    gpt2 = next(number for number, each in enumerate(objects) if "wte" in each)
    forge(graph + bytes_field(1, child(gpt2, "transformer") + child(0, "score")))
    with pytest.raises(WeightMismatch, match="score is the head of a classifier; expected a language model"):
        tensorflow2.read(directory)


def children(stored):
    for each in map(Message, Message(stored).parts(1)):
        yield each.parts(2)[0].decode(), each.number(1)


@pytest.mark.parametrize("number", [0, 10**6, 2**63])
def test_children_that_are_not_there_have_no_tensors(directory, forge, number):
    forge(bytes_field(1, b"".join(child(number, name) for name in ("wte", "wpe", "h", "ln_f"))))
    with pytest.raises(Gpt2kitError, match="there are only 0 tensors"):
        tensorflow2.read(directory)


def test_a_name_that_is_in_no_bundle_is_told(directory, forge, graph):
    forge(graph.replace(b"model/transformer/wte/embeddings/", b"model/transformer/wte/embeddingz/"))
    with pytest.raises(FormatError, match=r"wte/embeddingz/\.ATTRIBUTES/VARIABLE_VALUE is missing, which _CHECKPOINT"):
        tensorflow2.read(directory)


@pytest.mark.parametrize(
    "graph",
    [
        b"",
        b"\xff",
        b"\x0a\x7f",
        bytes_field(1, b"\x0a\x05abc"),
        bytes_field(1, bytes_field(1, bytes_field(2, b"\xff"))),
    ],
)
def test_no_graph_is_refused(directory, forge, graph):
    forge(graph)
    with pytest.raises(Gpt2kitError, match=r"is damaged|holds 0 GPT-2s"):
        tensorflow2.read(directory)


def test_a_graph_beyond_all_measure_is_not_read(directory, forge):
    forge(bytes_field(1, b"") * 2_200_000)
    with pytest.raises(FormatError, match=r"takes 4,400,00\d bytes; at most 4,194,304"):
        tensorflow2.read(directory)


@pytest.mark.slow
def test_a_damaged_graph_is_read_or_refused(directory, forge, graph, survives):
    def open_and_read(content):
        forge(content)
        with warnings.catch_warnings(action="ignore"):
            for tensor in tensorflow2.read(directory).tensors.values():
                tensor.read()

    outcomes = survives(graph, open_and_read)
    assert {"accepted", "FormatError", "WeightMismatch"} <= set(outcomes)
