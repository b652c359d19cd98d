"""The Keras weights of transformers' TFGPT2LMHeadModel: config.json, tf_model.h5 (or shards), tokenizer files.

tf_model.h5, as transformers 4.38 writes it:
    attributes backend, keras_version, layer_names = ["transformer"]
    group transformer, attribute weight_names: the paths of its datasets; keras_names.py knows them
    group top_level_model_weights, empty
    An attribute holds at most 64 KB; more names go on in weight_names0, weight_names1, ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2kit.atomic import replacing
from gpt2kit.checkpoint import Checkpoint, LazyTensor, tensor_shapes
from gpt2kit.config.limits import require
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import FormatError
from gpt2kit.formats.h5_file import SIGNATURE, open_tensors, require_h5py
from gpt2kit.formats.huggingface import checkpoint_of, write_surroundings
from gpt2kit.formats.keras_names import canonical, keras_name
from gpt2kit.formats.shards import read_shard_index
from gpt2kit.formats.sparse_file import SparseFile
from gpt2kit.progress import Progress, Report

WEIGHTS, INDEX = "tf_model.h5", "tf_model.h5.index.json"
KERAS_VERSION = "2.15.0"
NAMES_AN_ATTRIBUTE = 4000  # a name takes 16 bytes there, its text lies elsewhere


def sniff(path: Path) -> bool:
    """Whether `path` is such a directory, or one HDF5 file."""
    if not path.is_file():
        return (path / WEIGHTS).is_file() or (path / INDEX).is_file()
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def read(path: Path, *, step: int | None = None, model_dir: Path | None = None) -> Checkpoint:
    """The checkpoint at `path`: a directory, or a single .h5 file with its config.json beside it.

    Args:
        path: where the weights are.
        step: recorded in the result; the layout itself knows no steps.
        model_dir: where config.json and the tokenizer files are, if not beside the weights.
    """
    home = model_dir or (path.parent if path.is_file() else path)
    tensors: dict[str, LazyTensor] = {}
    for file in _weight_files(path):
        found = canonical(open_tensors(file), file)
        if twice := sorted(set(tensors) & set(found)):
            raise FormatError(file, None, f"holds {twice[0]}, which another shard holds as well")
        tensors |= found
    return checkpoint_of(tensors, home, path, step)


def write(checkpoint: Checkpoint, path: Path, report: Report) -> None:
    """Write the directory `path`, in float32; weights come last, so a directory with weights is whole."""
    require_h5py(f"writing {WEIGHTS}")
    _refuse_what_keras_lacks(checkpoint.config, checkpoint.origin)
    wide = checkpoint.stored_as("float32")
    write_surroundings(wide, path)
    in_order = {name: wide.tensors[name] for name in tensor_shapes(wide.config)}
    _write_weights(in_order, path / WEIGHTS, report)


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if (path / INDEX).is_file():
        # The index and its shards name tensors differently; whether all have come, the configuration tells.
        return [path / shard for shard in sorted(read_shard_index(path / INDEX))]
    raise FormatError(path, None, f"holds no weights; expected {WEIGHTS} or {INDEX}")


def _refuse_what_keras_lacks(config: ModelConfig, origin: str) -> None:
    instead = "; TFGPT2LMHeadModel has no place for that, safetensors has"
    require(config.tied_head, f"{origin}: the head is a matrix of its own{instead}")
    require(config.scale_attention, f"{origin}: the attention scores are not scaled{instead}")
    require(not config.scale_attention_by_layer, f"{origin}: the attention scores are scaled by layer{instead}")


def _write_weights(tensors: Mapping[str, LazyTensor], path: Path, report: Report) -> None:
    # libhdf5 crashes on a full disk. So it lays out the file in memory, and the values are written without it.
    layout = SparseFile()
    offsets = _lay_out(layout, {keras_name(name): tensor.shape for name, tensor in tensors.items()})
    done, total = 0, sum(tensor.size_bytes for tensor in tensors.values())
    with replacing(path) as file:
        layout.copy_to(file)
        for tensor, offset in zip(tensors.values(), offsets, strict=True):
            file.seek(offset)
            file.write(tensor.read_bytes())
            done += tensor.size_bytes
            report(Progress(f"write {path.name}", done, total, "byte"))


def _lay_out(file: SparseFile, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Write all but the values. Returns where those of each dataset begin."""
    import h5py

    with h5py.File(file, "w") as stored:
        stored.attrs.update(backend="tensorflow", keras_version=KERAS_VERSION, layer_names=["transformer"])
        stored.create_group("top_level_model_weights").attrs["weight_names"] = []
        group = stored.create_group("transformer")
        _write_names(group, list(shapes))
        return [
            _reserve(group, name, (1, *shape) if name.endswith("bias:0") else shape) for name, shape in shapes.items()
        ]


def _reserve(group: Any, name: str, shape: tuple[int, ...]) -> int:
    from h5py import h5d, h5p, h5s, h5t

    storage, link = h5p.create(h5p.DATASET_CREATE), h5p.create(h5p.LINK_CREATE)
    storage.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    storage.set_fill_time(h5d.FILL_TIME_NEVER)
    link.set_create_intermediate_group(True)
    dataset = h5d.create(group.id, name.encode(), h5t.IEEE_F32LE, h5s.create_simple(shape), storage, link)
    return dataset.get_offset()


def _write_names(group: Any, names: list[str]) -> None:
    parts = [names[begin : begin + NAMES_AN_ATTRIBUTE] for begin in range(0, len(names), NAMES_AN_ATTRIBUTE)]
    for number, part in enumerate(parts):
        group.attrs["weight_names" if len(parts) == 1 else f"weight_names{number}"] = part
