"""TensorFlow 2's way to keep transformers' TFGPT2LMHeadModel: a bundle of objects. It is read, never written.

    ckpt-1.index, ckpt-1.data-00000-of-00001, checkpoint     of tf.train.Checkpoint, save_weights or Keras's callbacks
    saved_model.pb, variables/variables.index and .data-...  a SavedModel; its graph is not looked at
config.json and tokenizer files lie beside it, or in DIR where save_pretrained made DIR/saved_model/1.

Names of tensors are paths, whichever was found first: model/transformer/wte/embeddings/.ATTRIBUTES/VARIABLE_VALUE here,
variables/0/.ATTRIBUTES/VARIABLE_VALUE there. The string _CHECKPOINTABLE_OBJECT_GRAPH tells them all
(tensorflow/core/protobuf/trackable_object_graph.proto):
    1 object, the root first: 1 child {1 number | 2 name} | 2 tensor {1 "VARIABLE_VALUE" | 3 its name in the bundle}
GPT-2 is the object with the children wte, wpe, h and ln_f, and what these have: wte {embeddings}, wpe {embeddings},
h {0 {attn {c_attn {weight, bias}}, ...}, ...}, as keras_names.py knows them. In earlier versions of transformers, such
as 4.20, wte has {weight}, and wpe is a tensor itself. Optimizers are other objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint, LazyTensor
from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.formats import openai
from gpt2kit.formats.huggingface import CONFIG, checkpoint_of
from gpt2kit.formats.keras_names import OURS, canonical
from gpt2kit.formats.protobuf import Message
from gpt2kit.formats.sorted_table import read_table
from gpt2kit.formats.tensor_bundle import index_path, open_tensors, read_string

OBJECTS, VALUE = "_CHECKPOINTABLE_OBJECT_GRAPH", "VARIABLE_VALUE"
GRAPH, VARIABLES, SAVED_MODEL = "saved_model.pb", "variables", "saved_model"
GPT2 = {"wte", "wpe", "h", "ln_f"}
IN_LAYER = ("ln_1", "attn/c_attn", "attn/c_proj", "ln_2", "mlp/c_fc", "mlp/c_proj")
OTHER_HEADS = {"score", "classifier", "qa_outputs"}


@dataclass(frozen=True)
class _Object:
    """An object of TensorFlow's."""

    children: Mapping[str, int]
    """Their numbers by name."""
    tensor: str | None
    """What its value is called in the bundle."""


def sniff(path: Path) -> bool:
    """Whether `path` is a SavedModel, a directory with such a bundle, or one of its files."""
    path = _bundles_place(path)
    if not openai.sniff(path):
        return False
    with suppress(FormatError, OSError):  # what is damaged is told when it is read
        return any(_holds_objects(prefix) for prefix in openai.bundles_at(path)[:1])
    return False


def read(path: Path, *, step: int | None = None, model_dir: Path | None = None) -> Checkpoint:
    """The checkpoint at `path`.

    Args:
        path: a SavedModel, a directory with bundles, a file of a bundle, or what the names of its files begin with.
        step: which bundle of a directory that has several, ckpt-STEP; None takes the newest.
        model_dir: where config.json and the tokenizer files are, if not beside it.

    Raises:
        ModelNotFound: there is no such step.
        FormatError, WeightMismatch: the files are damaged, or hold another model.
    """
    prefix = openai.find_bundle(_bundles_place(path), step)
    index = index_path(prefix)
    try:
        objects = list(_objects(read_string(prefix, OBJECTS)))
    except ValueError as error:
        raise FormatError(index, None, f"{OBJECTS} is damaged: {error}") from None
    gpt2 = _the_gpt2(objects, index)
    tensors = canonical(_named_as_keras_does(objects, gpt2, open_tensors(prefix), index), index)
    return checkpoint_of(tensors, model_dir or _home(prefix), path, openai.step_of(prefix))


def _bundles_place(path: Path) -> Path:
    directory = path.parent if path.name == GRAPH else path
    return directory / VARIABLES if index_path(directory / VARIABLES / VARIABLES).is_file() else path


def _holds_objects(prefix: Path) -> bool:
    return any(key == OBJECTS.encode() for key, _ in read_table(index_path(prefix)))


def _home(prefix: Path) -> Path:
    """Where config.json is, or should be."""
    homes = [prefix.parent]
    if prefix.parent.name == VARIABLES:
        model = prefix.parent.absolute().parent
        homes += [model, *([model.parents[1]] if model.parent.name == SAVED_MODEL else [])]
    return next((home for home in homes if (home / CONFIG).is_file()), homes[-1])


# --- objects ---


def _objects(graph: bytes) -> Iterator[_Object]:
    """Every object, in the order of their numbers. Raises ValueError."""
    for part in Message(graph).parts(1):
        stored = Message(part)
        children = {_text(child, 2): child.number(1) for child in map(Message, stored.parts(1))}
        names = [_text(tensor, 3) for tensor in map(Message, stored.parts(2)) if _text(tensor, 1) == VALUE]
        yield _Object(children, names[-1] if names else None)


def _text(message: Message, field: int) -> str:
    return b"".join(message.parts(field)[-1:]).decode()


def _the_gpt2(objects: Sequence[_Object], index: Path) -> _Object:
    found = [number for number, each in enumerate(objects) if each.children.keys() >= GPT2]
    if len(found) != 1:
        there = ", ".join(list(objects[0].children)[:6]) if objects else "nothing"
        raise WeightMismatch(f"{index}: holds {len(found)} GPT-2s; expected one. At its root are {there:.200}")
    for each in objects:
        if found[0] in each.children.values() and (heads := OTHER_HEADS & each.children.keys()):
            raise WeightMismatch(f"{index}: {min(heads)} is the head of a classifier; expected a language model")
    return objects[found[0]]


def _named_as_keras_does(
    objects: Sequence[_Object], gpt2: _Object, tensors: Mapping[str, LazyTensor], index: Path
) -> dict[str, LazyTensor]:
    """The tensors below `gpt2` by the names that keras_names.py takes."""

    def child(parent: _Object, path: str) -> _Object:
        for name in path.split("/"):
            number = parent.children.get(name, len(objects))
            parent = objects[number] if number < len(objects) else _Object({}, None)
        return parent

    modules = {name: child(gpt2, name) for name in ("wte", "wpe", "ln_f")}
    for number in child(gpt2, "h").children:
        if number.isdecimal():
            modules |= {f"h_._{number}/{part}": child(gpt2, f"h/{number}/{part}") for part in IN_LAYER}
    holders = {
        f"{module}/{parameter}": child(holder, parameter)
        for module, holder in modules.items()
        for parameter in holder.children.keys() & OURS.keys()
    }
    if modules["wpe"].tensor is not None:
        holders["wpe/embeddings"] = modules["wpe"]
    found = {f"transformer/{place}": holder.tensor for place, holder in holders.items() if holder.tensor is not None}
    if missing := sorted(set(found.values()) - tensors.keys()):
        raise FormatError(index, None, f"{missing[0]:.200} is missing, which {OBJECTS} tells of")
    return {place: tensors[name] for place, name in found.items()}
