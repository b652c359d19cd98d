"""Training that is killed (kill -9) again and again and started again until it ends, beside one that is left in peace.

    python benchmarks/bench_crash.py --kills 50        about 5 minutes on two cores

Weights, moments, samples and the story in metrics.jsonl must be equal, byte for byte, clock times aside. The instants
are random: while the program starts, while it learns, while it writes a snapshot, and just before it names one.
Dropout, accumulation, gradient checkpointing and bfloat16 are on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MODEL = Path(__file__).parents[1] / "tests" / "golden" / "hf-safetensors"
TEXT = "The cat sat on the mat. The dog ate the fog, and then the cat ate the dog; so it goes.\n" * 20
OPTIONS = (
    *("--steps", "100", "--batch-size", "4", "--window", "16", "--learning-rate", "1e-3", "--warmup-steps", "10"),
    *("--accumulate", "2", "--recompute", "--dropout", "0.1", "--precision", "bf16"),
    *("--save-every", "2", "--validate-every", "4", "--patience", "0", "--print-every", "3"),
    *("--sample-every", "20", "--sample-tokens", "5"),
)
CLOCKS = ("time", "tokens_per_second")
KILLS_A_RUN = 10
LONGEST_WAIT = 60.0  # seconds
PLACES = STARTING, NOTHING, BETWEEN, WRITING, UNNAMED = (
    "while it started",
    "before the first snapshot",
    "between two snapshots",
    "while it wrote a snapshot",
    "before it named a snapshot",
)


class Training:
    """A run in a directory of its own, which the same command begins and goes on with."""

    def __init__(self, place: Path) -> None:
        self.place, self.run = place, place / "checkpoint" / "run1"
        place.mkdir(parents=True, exist_ok=True)
        (place / "text.txt").write_text(TEXT, encoding="utf-8")

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gpt2kit", "finetune", "text.txt", "--model", str(MODEL), *OPTIONS]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (self.place / "said.txt").open("ab") as said:
            return subprocess.Popen(
                command, cwd=self.place, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )

    def finish(self) -> None:
        """Let it run to its end. Raises RuntimeError with what it said if that is a bad one."""
        if self.start().wait(timeout=300) != 0:
            raise RuntimeError((self.place / "said.txt").read_text(encoding="utf-8"))

    def kill(self, kind: str, instants: random.Random) -> str | None:
        """Start it, kill it at a random instant, and tell where that fell; None if it came to its end before.

        Args:
            kind: where to aim at; the process may have gone on when it is hit.
            instants: chooses how much is done before, and where in it.
        """
        before, process = self._seen(), self.start()
        try:
            self._wait(process, kind, before, instants)
        finally:
            process.kill()
        return None if process.wait() == 0 else self._where(before)

    def left(self) -> dict[str, object]:
        """All that a run leaves that must not depend on kills: the bytes of files by name, and its story."""
        steps = self.run / "steps"
        files = [path for path in steps.rglob("*") if path.suffix == ".safetensors"]
        files += [*(self.run / "samples").iterdir(), *(self.place / "samples").rglob("samples-*")]
        files += [self.run / name for name in ("model.safetensors", "latest", "best", "counter", "run.toml")]
        told = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        events = [{key: value for key, value in json.loads(line).items() if key not in CLOCKS} for line in told]
        others = {path.name for path in steps.iterdir()} | {path.name for path in self.run.parent.iterdir()}
        return {str(path.relative_to(self.place)): path.read_bytes() for path in files} | {
            "metrics.jsonl": events,
            "directories": others,
        }

    def _seen(self) -> dict[str, int]:
        """What tells that something has happened since: snapshots whole and partial, and when an event was logged."""
        story = self.run / "metrics.jsonl"
        return self._names() | ({story.name: story.stat().st_mtime_ns} if story.exists() else {})

    def _where(self, before: dict[str, int]) -> str:
        """Where a kill fell, by what it left behind."""
        new = {name for name, _ in self._seen().items() - before.items()}
        if any(name.endswith(".partial") for name in new):
            return WRITING
        if any(name.isdecimal() and int(name) > self._named() for name in new):
            return UNNAMED
        if not new:
            return STARTING
        return BETWEEN if self._named() else NOTHING

    def _wait(
        self, process: subprocess.Popen[bytes], kind: str, before: dict[str, int], instants: random.Random
    ) -> None:
        """Until a random instant, or until the process ends."""
        if kind == STARTING:
            time.sleep(instants.uniform(0, 3))
            return
        if kind == NOTHING and self._named():
            kind = BETWEEN
        first = self._named() + (0 if kind == NOTHING else instants.randint(0, 9))  # a step
        end = time.monotonic() + LONGEST_WAIT
        while process.poll() is None and time.monotonic() < end:
            if self._named() >= first and self._where(before) == kind:
                time.sleep(instants.uniform(0, 0.004) if kind != UNNAMED else 0)
                return

    def _names(self) -> dict[str, int]:
        """What lies in steps/: names and inodes."""
        try:
            return {entry.name: entry.inode() for entry in os.scandir(self.run / "steps")}
        except FileNotFoundError:
            return {}

    def _named(self) -> int:
        try:
            return int((self.run / "latest").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0


def main() -> int:
    from turns import heading

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    asked = parser.parse_args()
    heading(f"{asked.kills} kills of a training run, seed {asked.seed}")
    instants, fell, runs, different = random.Random(asked.seed), Counter[str](), 0, 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        peaceful = Training(Path(place) / "peaceful")
        peaceful.finish()
        while fell.total() < asked.kills:
            training, runs = Training(Path(place) / str(runs)), runs + 1
            for _ in range(min(KILLS_A_RUN, asked.kills - fell.total())):
                where = training.kill(instants.choice(PLACES), instants)
                if where is None:
                    break
                fell[where] += 1
            training.finish()
            theirs, ours = peaceful.left(), training.left()
            if theirs != ours:
                different += 1
                names = sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name))
                print(f"  run {runs} differs in {', '.join(names)}")
    for where in PLACES:
        print(f"  {fell[where]:4} {where}")
    print(f"  {runs} runs of 100 steps, {runs - different} of them equal to the one left in peace, bit for bit")
    print(f"  {time.perf_counter() - started:.0f} s")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
