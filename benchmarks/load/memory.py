"""Ten thousand requests of every kind: how much the server's memory grows after the first 500. Wanted: under 2 %.

Kinds by chance: whole and streamed texts, several prompts, n, logprobs, echo, stop strings, penalties, ids, /tokenize,
refused ones, and one in ten is left by its reader half-way. Sixteen callers, who rest while the memory is read, so that
no request in progress counts. With a tiny model the memory is the server's own and not the weights', so that 2 % of it
is little; another size may be named.
Usage: memory.py [REQUESTS] [SIZE]
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from served import Server, complete, cores_used, events, exchange, heading, random_model, request_bytes, serving

CALLERS = 16
FIRST = 500
WORDS = ("a", "bright", "cold", "day", "in", "April", "and", "the", "clocks", "striking", "中文", "naïve", "🙂", "\n")
KINDS = (
    {},
    {"stream": True},
    {"stream": True, "stream_options": {"include_usage": True}, "logprobs": 2},
    {"n": 3, "temperature": 0.7, "top_k": 40},
    {"echo": True, "logprobs": 5, "max_tokens": 0},
    {"echo": True, "logprobs": 1, "return_token_ids": True},
    {"stop": ["the", "\n"], "presence_penalty": 0.5, "frequency_penalty": 0.5},
    {"prompt": list(range(100, 200))},
    {"prompt": ["One", "Two", "Three"], "best_of": 2, "seed": 1},
    {"temperature": 0, "logit_bias": {"50256": -100}, "bad_words": ["the"]},
    {"prompt": list(range(5000))},  # refused: too long
    {"temprature": 1},  # refused: unknown
)


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    size = sys.argv[2] if len(sys.argv) > 2 else "tiny"
    heading(f"{requests:,} requests of mixed kinds, random {size}, {CALLERS} callers, one in ten leaves half-way")
    with serving(random_model(size)) as server:
        asyncio.run(mixed(server, requests))


async def mixed(server: Server, requests: int) -> None:
    chance, statuses, started, sizes = random.Random(0), Counter[str](), time.perf_counter(), dict[int, int]()

    async def caller(numbers: Iterator[int]) -> None:
        for _ in numbers:
            statuses[await one(server.port, chance)] += 1

    with cores_used(server) as cores:
        for begin, end in pairwise([0, FIRST, *range(requests // 10, requests + 1, requests // 10)]):
            numbers = iter(range(begin, end))
            await asyncio.gather(*(caller(numbers) for _ in range(CALLERS)))
            while await server.running():
                await asyncio.sleep(0.1)
            sizes[end] = server.resident_bytes()
            print(f"  after {end:6,}: {sizes[end] / 1e6:7.1f} MB, {time.perf_counter() - started:.0f} s")
    print(f"  growth after the first {FIRST}: {sizes[requests] / sizes[FIRST] - 1:+.2%}")
    print(f"  answers: {dict(statuses)}; running {await server.running()}, waiting {await server.waiting()}")
    print(f"  {cores[0]}")


async def one(port: int, chance: random.Random) -> str:
    prompt = " ".join(chance.choices(WORDS, k=chance.randint(1, 60)))
    if chance.random() < 0.05:
        return str((await exchange(port, request_bytes("POST", "/tokenize", b'{"prompt": "A text"}'))).status)
    fields = {"prompt": prompt, "max_tokens": chance.randint(1, 24), **chance.choice(KINDS)}
    if chance.random() < 0.1:
        return await left_half_way(port, chance, {**fields, "max_tokens": 10_000, "ignore_eos": True})
    return str((await complete(port, **fields)).status)


async def left_half_way(port: int, chance: random.Random, fields: dict) -> str:
    """Read some pieces of a stream, or wait a little for a whole text, and go."""
    if not fields.get("stream"):
        try:
            return str((await asyncio.wait_for(complete(port, **fields), chance.random() / 10)).status)
        except TimeoutError:
            return "left"
    pieces = 0
    fields.pop("stream")
    async for _ in events(port, **fields):
        pieces += 1
        if pieces == 5:
            break
    return "left"


if __name__ == "__main__":
    main()
