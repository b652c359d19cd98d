"""What this machine has for gpt2kit, and how to get what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gpt2kit.generate.select import has_native, preferred_engine

EXTRAS = {  # package: (extra, what it is for)
    "torch": ("train", "training, the torch engine, GPUs"),
    "matplotlib": ("train", "the picture of a run's loss"),
    "tokenizers": ("tokenizers", "learning a vocabulary"),
    "h5py": ("h5", "tf_model.h5"),
    "onnx": ("onnx", "writing ONNX models"),
    "pyarrow": ("data", "Parquet"),
    "zstandard": ("data", ".zst"),
    "fastapi": ("serve", "gpt2 serve"),
}
LOW_DISK_BYTES = 5 * 10**9  # a 124M run with three snapshots and their optimizer states takes 4.5 GB


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` says what to do where something is missing or short."""

    subject: str
    found: str
    fix: str | None = None


def doctor() -> list[Finding]:
    """Versions, engines, instruction sets, disk and memory. Imports no torch."""
    findings = [
        Finding("gpt2kit", version("gpt2kit")),
        Finding("python", f"{platform.python_version()} on {platform.platform()}"),
        *(Finding(name, version(name)) for name in ("numpy", "tiktoken")),
    ]
    for package, (extra, purpose) in EXTRAS.items():
        try:
            findings.append(Finding(package, version(package)))
        except PackageNotFoundError:
            findings.append(Finding(package, f"missing ({purpose})", f"pip install 'gpt2kit[{extra}]'"))
    findings.append(Finding("engine", f"auto means {preferred_engine()}"))
    findings.append(_native_engine())
    findings.append(Finding("processor", f"{os.cpu_count()} cores; {instruction_sets()}"))
    return [*findings, _memory(), _disk(Path.cwd())]


def _native_engine() -> Finding:
    if has_native():
        from gpt2kit.generate.native_engine import native_instruction_sets

        used, usable = native_instruction_sets()
        return Finding("native", f"{used}, of {' '.join(usable)}")
    instead = "torch" if find_spec("torch") else "reference, which is slow,"
    fix = "get a C++ compiler (on Debian: apt-get install g++) and install gpt2kit again"
    return Finding("native", f"not built; {instead} serves instead", fix)


def instruction_sets() -> str:
    """The vector instructions numpy found on this processor, widest last."""
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    return " ".join([*extensions.get("baseline", []), *extensions.get("found", [])])


def _memory() -> Finding:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Finding("memory", "unknown on this system")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fix = "124M takes about 1 GB to write with and 3 GB to train; close other programs" if total < 4e9 else None
    return Finding("memory", f"{total / 1e9:.1f} GB", fix)


def _disk(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    fix = "make room, or work in a directory on another disk" if free < LOW_DISK_BYTES else None
    return Finding("disk", f"{free / 1e9:.1f} GB free in {place}", fix)
