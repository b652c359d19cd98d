"""`gpt2 encode` with two workers beside tiktoken alone in one process, and its memory over 2 GB of text.

Speed: 15 rounds in turn, each a fresh process on the same 200 MB of English. tiktoken reads pieces of 1 MB and keeps
nothing; ours is the whole command, with its start, reading, writing and fsync. Memory: the highest sum of PSS (which
counts shared pages once) over the process tree. Needs ../shared/data; --megabytes N makes all of it smaller.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tiktoken
from turns import heading, in_turn

DATA = (Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
WORKERS, ROUNDS = 2, 15
ALONE = """
import sys, time
from pathlib import Path
import tiktoken
from gpt2kit.tokenizer.byte_level import PATTERN
from gpt2kit.tokenizer.vocabulary import read_vocabulary
data = Path(sys.argv[2])
vocabulary = read_vocabulary({name: (data / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}, "data")
alone = tiktoken.Encoding("alone", pat_str=PATTERN, mergeable_ranks=vocabulary.mergeable(), special_tokens={})
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    while piece := file.read(1_000_000):
        alone.encode_ordinary(piece)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_text(place / "text.txt", asked.megabytes)
        heading(f"encode {asked.megabytes} MB, {WORKERS} workers, beside tiktoken {tiktoken.__version__} alone")
        in_turn(
            lambda number: rate(encode_command(place / "text.txt", place / f"out{number}"), asked.megabytes),
            lambda number: rate([sys.executable, "-c", ALONE, place / "text.txt", DATA], asked.megabytes),
            "MB/s",
            asked.rounds,
        )
        large = asked.megabytes * 10
        write_text(place / "large.txt", large)
        heading(f"encode {large} MB in one file: memory")
        peak, seconds = watched(encode_command(place / "large.txt", place / "large"))
        print(f"  peak of the sum of PSS {peak:.0f} MB, {large / seconds:.1f} MB/s")


def encode_command(text: Path, output: Path) -> list[object]:
    options = ["--model", DATA, "--workers", WORKERS]
    return [sys.executable, "-m", "gpt2kit", "encode", text, "-o", output, *options]


def rate(command: list[object], megabytes: int) -> float:
    started = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return megabytes / (time.perf_counter() - started)


def watched(command: list[object]) -> tuple[float, float]:
    """The highest PSS in MB, asked for ten times a second, and the seconds it took."""
    started, peak = time.perf_counter(), 0.0
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(pss_megabytes(pid) for pid in family(process.pid)))
        time.sleep(0.1)
    assert process.returncode == 0, "gpt2 encode failed"
    return peak, time.perf_counter() - started


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in family(int(child)))]


def pss_megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def write_text(path: Path, megabytes: int) -> None:
    """Shakespeare and Wikipedia, over and over."""
    sources = ("tinyshakespeare/input.txt", "wikitext-2.test.txt")
    text = b"".join((DATA / source).read_bytes() for source in sources)
    with path.open("wb") as file:
        for left in range(megabytes * 1_000_000, 0, -len(text)):
            file.write(text[:left])


if __name__ == "__main__":
    main()
