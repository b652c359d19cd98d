"""gpt2 bench: how fast this machine writes, with every precision, beside what its memory allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure how fast this machine writes.

    One text, greedily, with the weights in every precision of the native engine. All weights are read from memory for
    every token, so the last column tells how near that is to what memory allows; small models may stay in the cache and
    pass it. Close other programs first.
    """

    model: Annotated[str | None, Positional, arg(metavar="[MODEL]", help_behavior_hint="")] = None
    """A known name, a directory, a file, or a run. None: a 124M of random weights, as fast as a real one."""
    threads: int | None = None
    """None takes as many as the processor has cores."""

    def __call__(self) -> int:
        """Print a line for every precision when it is known."""
        from gpt2kit.jobs.bench import Machine, bench

        for found in bench(self.model, threads=self.threads):
            if isinstance(found, Machine):
                threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
                print(f"{found.model}; {threads}, {found.instruction_set}")
                print("precision    weights   tokens/s      memory   share of its limit")
            else:
                megabytes, gigabytes = found.weight_bytes / 1e6, found.bytes_per_second / 1e9
                speed = f"{found.precision:<9} {megabytes:7,.0f} MB {found.tokens_per_second:10.1f}"
                print(f"{speed} {gigabytes:6.1f} GB/s {found.share:15.0%}", flush=True)
        return 0
