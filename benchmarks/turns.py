"""Contenders in turn: order swapped each round, a bandwidth probe before and after, medians of per-round ratios."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

from gpt2kit.jobs.doctor import instruction_sets

PROBE_BYTES = 500_000_000


def probe_gigabytes_per_second(memory: np.ndarray) -> float:
    """How fast one thread reads the memory right now."""
    started = time.perf_counter()
    memory.sum()
    return memory.nbytes / 1e9 / (time.perf_counter() - started)


def in_turn(ours: Callable[[int], float], peer: Callable[[int], float], unit: str, rounds: int = 15) -> None:
    """Run both every round, each given the round's number and returning its rate; print what came of it."""
    memory = np.ones(PROBE_BYTES // 8, np.int64)
    rates: list[tuple[float, float]] = []
    probes = [probe_gigabytes_per_second(memory)]
    for number in range(rounds):
        if number % 2:
            peer_rate, our_rate = peer(number), ours(number)
        else:
            our_rate, peer_rate = ours(number), peer(number)
        rates.append((our_rate, peer_rate))
        probes.append(probe_gigabytes_per_second(memory))
    ratios = sorted(our_rate / peer_rate for our_rate, peer_rate in rates)
    print(
        f"  ours {statistics.median(r[0] for r in rates):.1f} {unit}, peer {statistics.median(r[1] for r in rates):.1f}"
    )
    print(f"  ratio: median {statistics.median(ratios):.3f}, lower quartile {ratios[len(ratios) // 4]:.3f}", end="")
    print(f", of {rounds} rounds; probe {min(probes):.1f} to {max(probes):.1f} GB/s, one thread")


def heading(title: str) -> None:
    """Say what is measured, when and on what."""
    print(f"{title}\n  {date.today()}, {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")


def processor() -> str:
    """The processor's name and its vector instructions as numpy found them."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text("utf-8").splitlines() if names.exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return f"{name} ({instruction_sets()})"
