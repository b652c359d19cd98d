"""HDF5, the container of Keras: named arrays in groups. Tensors stay on disk until they are read.

libhdf5 is the one reader of its format (support.hdfgroup.org, "HDF5 File Format Specification"), and not made for files
that lie. So a child process asks it where the values lie (`h5_child`); here every claim is checked against the file's
size, and the values are mapped without it. Only plain, contiguous arrays of floats are read; Keras writes no others.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.errors import FormatError, MissingExtra, TruncatedFile
from gpt2kit.formats import h5_child
from gpt2kit.formats.mapped import MAX_DIMS, MAX_ELEMENTS, mapped

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DTYPES = {"<f2": "float16", "<f4": "float32", "<f8": "float64"}
TIMEOUT_SECONDS = 60


def open_tensors(path: Path) -> dict[str, LazyTensor]:
    """Every dataset of the file by its path inside, unread; each lies within the file."""
    require_h5py("reading an HDF5 file such as tf_model.h5")
    return tensors_of(path, *_ask_child(path))


def require_h5py(purpose: str) -> None:
    """Raise MissingExtra where h5py is not installed."""
    if importlib.util.find_spec("h5py") is None:
        raise MissingExtra(purpose, "h5")


def tensors_of(path: Path, status: int, answer: bytes, complaint: bytes = b"") -> dict[str, LazyTensor]:
    """The tensors that a child with this exit status, standard output and standard error tells of, all checked."""
    if status != 0:
        raise FormatError(path, None, f"the HDF5 library could not read it: {_end(status, complaint)}")
    told: dict[str, Any] = json.loads(answer)
    if problem := told.get("problem"):
        raise FormatError(path, None, problem)
    size = path.stat().st_size
    return {claim[0]: _tensor(path, size, claim) for claim in told["datasets"]}


def _ask_child(path: Path) -> tuple[int, bytes, bytes]:
    # -P keeps the modules beside the program from being found as top-level ones.
    command = [sys.executable, "-P", h5_child.__file__, str(path)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # h5py is where it is for us
        "HDF5_USE_FILE_LOCKING": "FALSE",  # read-only disks cannot lock
        "HDF5_PLUGIN_PRELOAD": "::",  # no foreign code
        "OPENBLAS_NUM_THREADS": "1",  # threads that only take memory
    }
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = (
            f"the HDF5 library did not finish reading it in {TIMEOUT_SECONDS} s; it is damaged, or its disk very slow"
        )
        raise FormatError(path, None, problem) from None
    return done.returncode, done.stdout, done.stderr


def _end(status: int, complaint: bytes) -> str:
    if status > 0:
        last_line = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"its process ended with status {status}, saying {last_line!r:.200}"
    try:
        return f"its process was ended by {signal.Signals(-status).name}; the file is damaged"
    except ValueError:
        return f"its process was ended by signal {-status}; the file is damaged"


def _tensor(path: Path, size: int, claim: list[Any]) -> LazyTensor:
    name, storage, shape, begin, given = claim
    if len(shape) > MAX_DIMS or math.prod(max(count, 1) for count in shape) > MAX_ELEMENTS:
        limits = f"at most {MAX_DIMS} dimensions and {MAX_ELEMENTS} elements are allowed"
        raise FormatError(path, None, f"{name!r:.200} claims the shape {shape}; {limits}")
    needed = math.prod(shape) * np.dtype(storage).itemsize
    if needed > 0 and begin is None:
        raise FormatError(path, None, f"{name!r:.200} {shape} has no values; they were never written")
    if given != needed:
        raise FormatError(path, begin, f"{name!r:.200} {shape} takes {needed} bytes, but has {given}")
    if needed > 0 and begin + needed > size:
        raise TruncatedFile(path, begin, f"{name!r:.200} ends at byte {begin + needed}, but the file has {size}")

    def load() -> np.ndarray:
        if needed == 0:
            return np.empty(shape, storage)
        return mapped(path, storage, begin, tuple(shape))

    return LazyTensor(name, DTYPES[storage], tuple(shape), load)
