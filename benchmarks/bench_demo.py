"""How long `gpt2 demo` takes, process start to end, in an empty directory, with what is installed here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from turns import heading


def main() -> None:
    heading("gpt2 demo, from nothing to samples")
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "gpt2kit", "demo"], cwd=place, check=True, capture_output=True, encoding="utf-8"
        )
        seconds = time.perf_counter() - started
    print(f"  {seconds:.0f} s")
    print("\n".join(f"  {line}" for line in done.stdout.splitlines() if line.startswith(("run ", "held-out"))))


if __name__ == "__main__":
    main()
