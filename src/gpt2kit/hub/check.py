"""Is this the file that was asked for? By hash where one is known, else by what a file of its kind must look like.

*.json             a JSON object                        model.ckpt.index   the magic number of a TensorFlow table
vocab.bpe,         two tokens a line, after             model.ckpt.data-*  whole float32 numbers
merges.txt         at most one line of comment          *.safetensors      a header that fits the file's size
*.txt              text                                 *.bin              a zip, or the start of an old pickle
checkpoint         names a checkpoint                   *.h5               the signature of HDF5
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from gpt2kit.errors import FormatError
from gpt2kit.formats.safetensors_file import open_tensors
from gpt2kit.formats.sorted_table import is_table
from gpt2kit.hub.promise import Promise
from gpt2kit.json_object import read_object, read_small
from gpt2kit.progress import Progress, Report

WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|error)\b", re.IGNORECASE)
STARTS = {".bin": (b"PK\x03\x04", b"\x80\x02\x8a\x0a"), ".h5": (b"\x89HDF\r\n\x1a\n",)}
READ_BYTES = 1 << 20
REPORTED_FROM = 50_000_000  # bytes; what is smaller is read in an instant


def is_web_page(start: bytes) -> bool:
    """Whether a file that starts like this is a page or an error message of a server; no file of a model is."""
    return WEB_PAGE.match(start) is not None


def hash_problem(path: Path, promise: Promise, report: Report, task: str) -> tuple[str, str | None]:
    """The SHA-256 of `path`, and what is wrong with its size or its hashes, if anything is."""
    size = path.stat().st_size
    hashes = {"sha256": hashlib.sha256()}
    if promise.git_sha1:
        hashes["git_sha1"] = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    if promise.md5:
        hashes["md5"] = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        done = 0
        while content := file.read(READ_BYTES):
            for one in hashes.values():
                one.update(content)
            done += len(content)
            if size >= REPORTED_FROM:
                report(Progress(task, done, size, "byte"))
    found = hashes["sha256"].hexdigest()
    if promise.size not in (None, size):
        return found, f"{size:,} bytes, expected {promise.size:,}"
    for name, one in hashes.items():
        expected = getattr(promise, name)
        if expected not in (None, one.hexdigest()):
            return found, f"its {name} is {one.hexdigest()}, expected {expected}"
    return found, None


def structure_problem(path: Path, name: str) -> str | None:
    """What keeps `path` from being a file `name` of a model, if anything does."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "it is empty"
    if is_web_page(start):
        return "it is a web page"
    try:
        return _problem(path, name, start)
    except FormatError as error:
        return str(error).removeprefix(f"{path}: ")


def _problem(path: Path, name: str, start: bytes) -> str | None:
    kind = Path(name).suffix
    if kind == ".json":
        read_object(path)
    elif kind == ".safetensors":
        open_tensors(path)
    elif kind in STARTS and not start.startswith(STARTS[kind]):
        return f"it starts with {start[:8].hex(' ')}, expected {STARTS[kind][0].hex(' ')}"
    elif name in ("vocab.bpe", "merges.txt"):
        return _merges_problem(path)
    elif kind == ".txt":
        return None if _text(path) is not None else "it is not text"
    elif name == "checkpoint":
        return None if b'model_checkpoint_path: "' in start else "it names no checkpoint"
    elif kind == ".index":
        return None if is_table(path) else "it does not end as TensorFlow's tables do"
    elif ".data-" in name and (rest := path.stat().st_size % 4):
        return f"{rest} bytes more than whole float32 numbers"
    return None


def _merges_problem(path: Path) -> str | None:
    text = _text(path)
    if text is None:
        return "it is not text"
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not (number == 1 and line.startswith("#version")) and len(line.split()) != 2:
            return f"line {number} is {line!r:.60}, expected two tokens"
    return None


def _text(path: Path) -> str | None:
    try:
        return read_small(path).decode("utf-8")
    except UnicodeDecodeError:
        return None
