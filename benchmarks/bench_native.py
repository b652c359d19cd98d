"""Native engine beside llama.cpp, CTranslate2 and transformers on two threads, random weights of GPT-2's shapes.

decode: 128 new tokens after 16, greedy, batch 1, prompt included. Each contender's share of the bandwidth is
    bytes of weights * tokens/s / what two threads read just then (the larger of the probes around the round).
batch: 32 texts at once, after their prompts. Ours chooses every token with top_k 40; llama.cpp only thinks.
prefill: 512 ids of one prompt.
Every contender is a process of its own that keeps its model (peers/); they take turns and sleep in between.
Usage: bench_native.py [size [rounds [part of a title]]], for example: bench_native.py 355M 15 Q8_0.
Needs ../shared/data. What is missing of peers and models is built under $GPT2KIT_PEERS, or build/peers: 10 to 20
minutes, once. gpt2kit itself must be installed with its native engine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from load.served import random_model
from peers.build import CONVERTERS, converters, ct2, environment, gguf, llama
from turns import heading

from gpt2kit.generate.native_engine import ReadSpeed

HERE = Path(__file__).parent
THREADS = 2
PROBE_BYTES = 1 << 30
PAUSE = 0.2  # seconds until the threads of a contender that has answered no longer look for work
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # as ours has them; where the system leaves the choice


@dataclass(frozen=True)
class Comparison:
    """Two contenders and what both are asked."""

    kind: str
    ours: str
    peer: str
    precision: str


ASKED = {"decode": "decode 16 128", "batch": "batch 32 16 64", "prefill": "prefill 512 2"}
COMPARISONS = (
    Comparison("decode", "fp32", "llama.cpp", "F32"),
    Comparison("decode", "bf16", "llama.cpp", "BF16"),
    Comparison("decode", "int8", "llama.cpp", "Q8_0"),
    Comparison("decode", "int4", "llama.cpp", "Q4_0"),
    Comparison("decode", "fp32", "transformers", "float32"),
    Comparison("decode", "int8", "CTranslate2", "int8"),
    Comparison("batch", "int8", "llama.cpp", "Q8_0"),
    Comparison("prefill", "bf16", "llama.cpp", "BF16"),
    Comparison("prefill", "int8", "llama.cpp", "Q8_0"),
)


def main() -> None:
    size, rounds, wanted = (*sys.argv[1:], *("124M", "15", "")[len(sys.argv) - 1 :])
    read_speed = ReadSpeed(PROBE_BYTES)
    heading(f"native engine, random {size}, {THREADS} threads")
    for each in COMPARISONS:
        title = f"{each.kind}, ours {each.ours} beside {each.peer} {each.precision}"
        if wanted in title:
            print(title, flush=True)
            compare(each, size, int(rounds), read_speed)


# --- taking turns ---


class Contender:
    """A program of peers/ with a model in memory."""

    def __init__(self, python: Path | str, program: str, *arguments: Path | str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [python, HERE / "peers" / program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, **variables},
        )
        self.about = self.ask("about")

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"{self.process.args} ended; stderr says why"
        time.sleep(PAUSE)
        return json.loads(answer)

    def close(self) -> None:
        self.process.communicate()


def compare(comparison: Comparison, size: str, rounds: int, read_speed: ReadSpeed) -> None:
    """Both in turn, order swapped each round; print what came of it."""
    asked, pair = ASKED[comparison.kind], (ours(comparison, size), peer(comparison, size))
    if features := pair[1].about.get("features"):
        print(f"  {features.replace(' = 1', '')}")
    try:
        first = [each.ask(asked) for each in pair]  # the first use of memory costs more
        for each in pair:
            print(f"  {each.about['name']}: {each.about['bytes'] / 1e6:.0f} MB of weights a token")
        answers: list[list[dict[str, Any]]] = []
        probes = [read_speed(THREADS)]
        for number in range(rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            found = {place: pair[place].ask(asked) for place in order}
            answers.append([found[0], found[1]])
            probes.append(read_speed(THREADS))
    finally:
        for each in pair:
            each.close()
    if "ids" in first[0]:
        same = [mine == theirs for mine, theirs in zip(first[0]["ids"], first[1]["ids"], strict=True)]
        print(f"  the first {(*same, False).index(False)} of {len(same)} ids are equal")
    rates = np.array([[answer["rate"] for answer in pair] for pair in answers])
    ratios = sorted(rates[:, 0] / rates[:, 1])
    middle = np.median(rates, axis=0)
    print(f"  ours {middle[0]:.1f} tokens/s, peer {middle[1]:.1f}", end="")
    if comparison.kind == "decode":
        around = np.maximum(probes[:-1], probes[1:])[:, None]
        shares = np.median(rates * [each.about["bytes"] for each in pair] / around, axis=0)
        print(f"; share of the bandwidth: ours {shares[0]:.0%}, peer {shares[1]:.0%}", end="")
    if "choosing" in first[0]:
        print(f"; choosing took {statistics.median(a[0]['choosing'] for a in answers):.0%} of our time", end="")
    print(f"\n  ratio: median {statistics.median(ratios):.3f}, lower quartile {ratios[len(ratios) // 4]:.3f}", end="")
    print(
        f", of {rounds} rounds; probe {min(probes) / 1e9:.1f} to {max(probes) / 1e9:.1f} GB/s, two threads", flush=True
    )


def ours(comparison: Comparison, size: str) -> Contender:
    slots = "32" if comparison.kind == "batch" else "1"
    return Contender(sys.executable, "ours.py", random_model(size), comparison.ours, slots)


def peer(comparison: Comparison, size: str) -> Contender:
    precision, model = comparison.precision, random_model(size)
    if comparison.peer == "llama.cpp":
        return Contender(llama(), "llama.py", gguf(model, precision), **HUGE_PAGES)
    if comparison.peer == "CTranslate2":
        python, vocabulary = environment("ctranslate2", CONVERTERS[-1]), model / "vocab.json"
        return Contender(python, "ctranslate2_.py", ct2(model, precision), vocabulary, precision, **HUGE_PAGES)
    return Contender(converters(), "transformers_.py", model, precision, **HUGE_PAGES)


if __name__ == "__main__":
    main()
