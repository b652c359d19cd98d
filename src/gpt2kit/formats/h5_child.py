"""Where the values in an HDF5 file lie, told as one JSON object: the program that `h5_file` runs as a child process.

libhdf5 may crash, hang or eat memory on files that lie, so it works in a process that may be lost, with limits on its
memory and time. No link is followed, and no values are read.

    python h5_child.py FILE  ->  {"datasets": [[path, type, shape, offset, size], ...]} or {"problem": "what is wrong"}
    offset and size in bytes, from the start of the file; offset null where no values were ever written

It imports nothing of gpt2kit, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

GROWTH_BYTES = 1_000_000_000
CPU_SECONDS = 10
# GPT-2 1558M as Keras writes it: 1,019 objects, 7 deep, paths of 80 characters.
MAX_OBJECTS, MAX_DEPTH, MAX_PATH = 10_000, 16, 1000


class Refused(Exception):
    """The file holds something that no Keras writes."""


def limit_this_process() -> None:
    """At most GROWTH_BYTES more memory, CPU_SECONDS of work, no core dump."""
    try:
        import resource
    except ImportError:  # Windows: the clock of the parent is all there is
        return
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: CPU_SECONDS}
    if sys.platform == "linux":  # macOS knows the limit on memory, but refuses to set it
        with open("/proc/self/statm", encoding="ascii") as file:
            wanted[resource.RLIMIT_AS] = int(file.read().split()[0]) * resource.getpagesize() + GROWTH_BYTES
    for kind, soft in wanted.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def catalogue(path: str) -> dict[str, Any]:
    """The answer about the file at `path`."""
    from h5py import h5f, h5o

    try:
        root = h5o.open(h5f.open(os.fsencode(path), h5f.ACC_RDONLY), b"/")
        return {"datasets": list(_datasets(root))}
    except Refused as problem:
        return {"problem": str(problem)}
    except Exception as error:  # whatever h5py makes of libhdf5's complaints
        return {"problem": f"the HDF5 library cannot read it: {str(error) or type(error).__name__}"}


def _datasets(root: Any) -> Iterator[list[Any]]:
    from h5py import h5d, h5g, h5o

    seen, waiting = 0, [("", root)]
    while waiting:
        path, group = waiting.pop()
        for name in _names(group, path):
            inside = _joined(path, name)
            if (seen := seen + 1) > MAX_OBJECTS:
                raise Refused(f"more than {MAX_OBJECTS} groups and datasets")
            if len(inside) > MAX_PATH:
                raise Refused(f"a path of more than {MAX_PATH} characters, {inside!r:.200}")
            found = h5o.open(group, name)
            if isinstance(found, h5d.DatasetID):
                yield [inside, *_described(found, inside)]
            elif not isinstance(found, h5g.GroupID):
                raise Refused(f"{inside!r:.200} is neither a group nor a dataset")
            elif inside.count("/") >= MAX_DEPTH:
                raise Refused(f"groups nested more than {MAX_DEPTH} deep, as in {inside!r:.200}")
            else:
                waiting.append((inside, found))


def _names(group: Any, path: str) -> list[bytes]:
    from h5py import h5l

    links: list[tuple[bytes, int]] = []

    # h5py cannot pass on an error raised in here.
    def take(name: bytes, link: Any) -> bool:
        links.append((name, link.type))
        return len(links) > MAX_OBJECTS

    group.links.iterate(take, info=True)
    kinds = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link into another file"}
    for name, kind in links:
        if kind != h5l.TYPE_HARD:
            raise Refused(
                f"{_joined(path, name)!r:.200} is {kinds.get(kind, 'a link of an unknown kind')}, not followed"
            )
    return [name for name, _ in links]


def _joined(path: str, name: bytes) -> str:
    return f"{path}/{name.decode('utf-8', 'backslashreplace')}".removeprefix("/")


def _described(dataset: Any, path: str) -> tuple[str, list[int], int | None, int]:
    from h5py import h5d, h5s, h5t

    known = {"<f2": h5t.IEEE_F16LE, "<f4": h5t.IEEE_F32LE, "<f8": h5t.IEEE_F64LE}
    stored = dataset.get_type()
    code = next((code for code, kind in known.items() if stored.equal(kind)), None)
    if code is None:
        raise Refused(f"{path!r:.200} does not hold plain numbers of type {', '.join(known)}")
    properties = dataset.get_create_plist()
    if properties.get_layout() == h5d.VIRTUAL or properties.get_external_count() > 0:
        raise Refused(f"{path!r:.200} keeps its values in another file")
    if properties.get_layout() != h5d.CONTIGUOUS:
        raise Refused(
            f"{path!r:.200} is stored in chunks or compressed; unpack the file with: h5repack -f NONE -l CONTI OLD NEW"
        )
    space = dataset.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise Refused(f"{path!r:.200} has no shape and no values")
    return code, list(space.shape), dataset.get_offset(), dataset.get_storage_size()


def main(path: str) -> None:
    """Print the answer about the file at `path`."""
    import h5py  # noqa: F401  before the limits, which count from here

    limit_this_process()
    sys.stdout.write(json.dumps(catalogue(path)))


if __name__ == "__main__":
    main(sys.argv[1])
