"""A random 1558M in int8 and int4: tokens/s greedily, and the memory of the process, when packing and afterwards.

The first process packs the weights and keeps them in a file, the second maps that. Usage: bench_large.py [size].
Needs ../shared/data and 9 GB of disk in the temporary directory.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bench_native import Contender
from load.served import random_model
from turns import heading

ROUNDS = 5


def main() -> None:
    size = sys.argv[1] if len(sys.argv) > 1 else "1558M"
    heading(f"native engine alone, random {size}, two threads, 64 tokens after 16, the best of {ROUNDS}")
    for precision in ("int8", "int4"):
        for time in ("first", "second"):
            contender = Contender(sys.executable, "ours.py", random_model(size), precision)
            rate = max(contender.ask("decode 16 64")["rate"] for _ in range(ROUNDS))
            print(
                f"  {precision}, {time} start: {rate:.1f} tokens/s, {contender.about['bytes'] / 1e9:.2f} GB of weights;"
                f" memory {gigabytes(contender, 'VmRSS'):.2f} GB, at most {gigabytes(contender, 'VmHWM'):.2f}",
                flush=True,
            )
            contender.close()


def gigabytes(contender: Contender, name: str) -> float:
    """Of the process, as the system counts it: mapped pages of files are among it."""
    status = Path(f"/proc/{contender.process.pid}/status").read_text("ascii")
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024 / 1e9


if __name__ == "__main__":
    main()
