"""32 streams at once from `gpt2 serve`, llama.cpp's server and `transformers serve`: tokens/s, and how soon the first.

A wave is 32 streaming requests to /v1/completions, unlike prompts of some 16 tokens, 64 new tokens each, greedy, two
threads. The servers of one precision keep their models and take turns, order swapped each wave; transformers, which
is far slower, has every other one. A random 124M. Usage: bench_streams.py [WAVES [PRECISION]].
Needs ../shared/data; what is missing of the peers is built first (see peers/build.py).
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from load.served import VOCABULARY, events, get, heading, percentile, random_model, serving
from peers.build import environment, gguf, llama_program

STREAMS, NEW, WORDS = 32, 64, 13
SERVING = ("torch==2.13.0", "transformers[serving]==5.23.0")
KINDS = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
ENDLESS = {"ignore_eos": True}  # transformers refuses the word; a random model hardly ever ends


@dataclass
class Contender:
    """A server that is ready, and what came of its waves."""

    name: str
    port: int
    fields: Mapping[str, object]
    every: int = 1
    """It takes part in one wave of so many."""
    rates: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


def main() -> None:
    waves = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    heading(f"{STREAMS} streams of {NEW} tokens, random 124M, two threads, {waves} waves")
    model = random_model("124M")
    for precision in sys.argv[2:] or KINDS:
        with ExitStack() as servers:
            options = ("--slots", str(STREAMS), "--threads", "2", "--precision", precision)
            ours = servers.enter_context(serving(model, *options))
            contenders = [Contender(f"gpt2 serve, {precision}", ours.port, ENDLESS)]
            theirs = servers.enter_context(llama_server(gguf(model, KINDS[precision])))
            contenders.append(Contender(f"llama-server, {KINDS[precision]}", theirs, ENDLESS))
            if precision == "fp32":
                slow = servers.enter_context(transformers_serve(model))
                contenders.append(Contender("transformers serve, float32", slow, {"model": str(model)}, every=2))
            compare(contenders, waves)


def compare(contenders: list[Contender], waves: int) -> None:
    words = (VOCABULARY / "wikitext-2.test.txt").read_text("utf-8").split()
    for each in contenders:
        asyncio.run(wave(each, words))  # memory is touched, caches grow
        each.rates.clear()
        each.first.clear()
    for number in range(waves):
        for each in contenders if number % 2 == 0 else reversed(contenders):
            if number % each.every == 0:
                asyncio.run(wave(each, words[(number + 1) * STREAMS * WORDS :]))
                time.sleep(0.5)
    for each in contenders:
        print(
            f"  {each.name}: median {statistics.median(each.rates):.1f} tokens/s; first token: median"
            f" {percentile(each.first, 0.5) * 1000:.0f} ms, 99 % within {percentile(each.first, 0.99) * 1000:.0f} ms"
        )
    ours = contenders[0]
    for peer in contenders[1:]:
        ratios = sorted(mine / theirs for mine, theirs in zip(ours.rates[:: peer.every], peer.rates, strict=True))
        print(f"  ratio to {peer.name}: median {statistics.median(ratios):.2f}, lowest {ratios[0]:.2f}", flush=True)


async def wave(contender: Contender, words: list[str]) -> None:
    started = time.perf_counter()
    prompts = [" ".join(words[n * WORDS : (n + 1) * WORDS]) for n in range(STREAMS)]
    contender.first += await asyncio.gather(*(stream(contender, prompt) for prompt in prompts))
    contender.rates.append(STREAMS * NEW / (time.perf_counter() - started))


async def stream(contender: Contender, prompt: str) -> float:
    """Seconds until the first text."""
    started, first, ended = time.perf_counter(), 0.0, None
    fields = {"prompt": prompt, "max_tokens": NEW, "temperature": 0, **contender.fields}
    async for event in events(contender.port, **fields):
        for choice in event["choices"]:
            first = first or (time.perf_counter() - started if choice.get("text") else 0.0)
            ended = choice.get("finish_reason") or ended
    assert ended == "length", f"{contender.name} ended a text: {ended}"
    assert first, f"{contender.name} wrote nothing"
    return first


@contextmanager
def llama_server(model: Path) -> Iterator[int]:
    port = free_port()
    options = ("--parallel", STREAMS, "--ctx-size", STREAMS * 256, "--threads", 2, "--threads-batch", 2)
    with ready(port, llama_program("llama-server"), "--model", model, "--port", port, "--flash-attn", "on", *options):
        yield port


@contextmanager
def transformers_serve(model: Path) -> Iterator[int]:
    port, program = free_port(), environment("transformers-serve", *SERVING).with_name("transformers")
    with ready(port, program, "serve", model, "--port", port, "--device", "cpu"):
        yield port


@contextmanager
def ready(port: int, *command: object) -> Iterator[None]:
    """Another's server, once it says that it is well."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*map(str, command)], stdout=said, stderr=said)
        try:
            asyncio.run(until_well(port, process))
            yield
        finally:
            process.terminate()
            process.wait(30)


async def until_well(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None, f"{process.args} ended with status {process.returncode}"
        try:
            if (await get(port, "/health")).status == 200:
                return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.2)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    main()
