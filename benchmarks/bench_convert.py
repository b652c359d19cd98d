"""Converting a large model, and back: private memory, and time beside copying the same bytes.

A random model goes from OpenAI's bundle to safetensors and back, each verified as `gpt2 convert` does. Before and after
each, `cp --reflink=never` and `sync` of the directory that is read. Memory is RssAnon, looked at every 20 ms. Needs
room for four copies: 25 GB for 1558M. Usage: bench_convert.py [124M|355M|774M|1558M] [directory for the copies]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from turns import heading

from gpt2kit.config.model import SIZES
from gpt2kit.formats import openai
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.progress import silent


def main() -> None:
    size = sys.argv[1] if len(sys.argv) > 1 else "1558M"
    place = Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None))
    free_bytes = shutil.disk_usage(place).free
    try:
        heading(f"converting a random {size}, {free_bytes / 1e9:.0f} GB free on the disk")
        openai.write(initial_checkpoint(SIZES[size].config(50257), {}, 0), place / "tf1", silent)
        subprocess.run(["sync"], check=True)
        measure(place / "tf1", place / "hf", "safetensors", place)
        shutil.move(place / "tf1", place / "origin")
        measure(place / "hf", place / "tf1", "openai", place)
        same = subprocess.run(["cmp", *place.glob("*/*.data-00000-of-00001")]).returncode == 0
        print(f"  after both: {'the same bytes' if same else 'OTHER BYTES'} as at first")
    finally:
        shutil.rmtree(place)


def measure(source: Path, target: Path, name: str, place: Path) -> None:
    before, (seconds, peak), after = copy(source, place), convert(source, target, name), copy(source, place)
    print(
        f"  {source.name} to {name}: {seconds:.1f} s, cp and sync {before:.1f} s before and {after:.1f} s after "
        f"(ratio {2 * seconds / (before + after):.2f}), peak RssAnon {peak / 1e6:,.0f} MB"
    )


def copy(source: Path, place: Path) -> float:
    began = time.perf_counter()
    subprocess.run(["cp", "--reflink=never", "-r", source, place / "copy"], check=True)
    subprocess.run(["sync"], check=True)
    seconds = time.perf_counter() - began
    shutil.rmtree(place / "copy")
    subprocess.run(["sync"], check=True)
    return seconds


def convert(source: Path, target: Path, name: str) -> tuple[float, float]:
    """Seconds, and the peak of private memory in bytes, of a process that does nothing else."""
    began, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2kit", "convert", source, target, "--to", name], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        peak = max(peak, private_bytes(process.pid))
        time.sleep(0.02)
    assert process.returncode == 0
    return time.perf_counter() - began, peak


def private_bytes(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    main()
