"""How long `gpt2 --help` takes, process start to end, installed plainly (not editable) into a fresh environment."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from turns import heading

ROOT = Path(__file__).parents[1]
RUNS = 20


def main() -> None:
    heading("gpt2 --help, non-editable install without extras")
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        binaries = Path(place) / ("Scripts" if sys.platform == "win32" else "bin")
        install = ["install", "-q", "-c", str(ROOT / "constraints.txt"), str(ROOT)]
        subprocess.run([binaries / "python", "-m", "pip", *install], check=True)
        for arguments in (["--help"], ["generate", "--help"], ["--version"]):
            run(binaries / "gpt2", arguments)  # the first run compiles
            seconds = sorted(run(binaries / "gpt2", arguments) for _ in range(RUNS))
            print(f"  gpt2 {' '.join(arguments):<17} median {statistics.median(seconds):.3f} s", end="")
            print(f", slowest {seconds[-1]:.3f} s, of {RUNS} runs")


def run(program: Path, arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
