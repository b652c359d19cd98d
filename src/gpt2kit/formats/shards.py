"""Hugging Face's way to spread tensors over several files, whatever the kind of file.

FILE.index.json = {"metadata": {"total_size": bytes}, "weight_map": {tensor name: file name}}
Files are called STEM-00001-of-00003.SUFFIX and lie beside the index.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gpt2kit.atomic import replace_bytes
from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError
from gpt2kit.json_object import read_object
from gpt2kit.progress import Report

Tensors = Mapping[str, LazyTensor]


def read_weight_map(index: Path) -> dict[str, str]:
    """What `index` says about each tensor: the name of a file, which may be anything."""
    placed = read_object(index).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise FormatError(index, None, "expected a weight_map from tensor names to file names")
    return placed


def read_shard_index(index: Path) -> dict[str, set[str]]:
    """Which tensors each shard holds, by file name; every file is there, in the directory of `index`."""
    placed = read_weight_map(index)
    beside = {path.name for path in index.parent.iterdir() if path.is_file()}
    shards: dict[str, set[str]] = {}
    for tensor, shard in placed.items():
        # A name that leads elsewhere is an attack, not a shard.
        if shard not in beside:
            raise FormatError(
                index, None, f"names the shard {shard!r:.80}, missing; expected a file in the same directory: fetch it"
            )
        shards.setdefault(shard, set()).add(tensor)
    return shards


def open_shards(index: Path, open_tensors: Callable[[Path], dict[str, LazyTensor]]) -> dict[str, LazyTensor]:
    """Every tensor that `index` names, unread, from files that `open_tensors` opens."""
    tensors: dict[str, LazyTensor] = {}
    for shard, names in read_shard_index(index).items():
        found = open_tensors(index.parent / shard)
        if missing := sorted(names - set(found)):
            raise FormatError(index, None, f"{len(missing)} tensors are not in {shard}, such as {missing[0]}")
        tensors |= {name: found[name] for name in found if name in names}
    return tensors


def write_shards(
    tensors: Tensors,
    path: Path,
    write_tensors: Callable[[Tensors, Path, Report], None],
    report: Report,
    shard_bytes: int | None,
) -> None:
    """Write `tensors` to `path`, or an index and files whose values take at most `shard_bytes`, or are one tensor."""
    groups = list(_grouped(tensors, shard_bytes))
    if len(groups) == 1:
        write_tensors(tensors, path, report)
        return
    placed: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = f"{path.stem}-{number:05}-of-{len(groups):05}{path.suffix}"
        write_tensors(group, path.with_name(name), report)
        placed |= dict.fromkeys(group, name)
    index = {"metadata": {"total_size": _size(tensors)}, "weight_map": placed}
    replace_bytes(path.with_name(f"{path.name}.index.json"), (json.dumps(index, indent=2) + "\n").encode())


def _grouped(tensors: Tensors, limit: int | None) -> Iterator[dict[str, LazyTensor]]:
    group: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        twice = any(tensor.load == other.load for other in group.values())  # a tied head takes no room
        if group and limit is not None and not twice and _size({**group, name: tensor}) > limit:
            yield group
            group = {}
        group[name] = tensor
    yield group


def _size(tensors: Tensors) -> int:
    """Bytes of the values; two names of one tensor (a tied head) are stored once."""
    return sum({tensor.load: tensor.size_bytes for tensor in tensors.values()}.values())
