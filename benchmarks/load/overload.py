"""Too many callers: four times the requests a second that the server can answer, for 5 minutes.

First the peak: tokens/s with 8, 16 and 32 callers who each ask again when they are answered; the best counts. Then
requests come at four times the rate that answers came at then, whether or not earlier ones are answered. Wanted: at
least 95 % of the peak, and status 429 at once for all that find no room. The server's metrics count the tokens.
A random 124M, 8 slots, a queue of 64, unlike prompts of 16 ids, 32 new tokens each. Usage: overload.py [SECONDS] [SIZE]
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter

from served import Answer, Server, complete, cores_used, heading, percentile, random_model, serving

NEW = 32
CALLERS = (8, 16, 32)
TIMES = 4


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
    size = sys.argv[2] if len(sys.argv) > 2 else "124M"
    heading(f"{TIMES} times capacity for {seconds:.0f} s, random {size}, 8 slots, queue 64, 32 tokens a request")
    with serving(random_model(size)) as server:
        asyncio.run(overload(server, seconds))


async def overload(server: Server, seconds: float) -> None:
    prompts = random.Random(0)
    await at_once(server, prompts, 8, 10)  # warm
    peak = max([await at_once(server, prompts, callers, min(60, seconds / 2)) for callers in CALLERS])
    print(f"  peak {peak:.1f} tokens/s, {peak / NEW:.2f} requests/s")
    answers: list[Answer] = []
    started, before = time.perf_counter(), await server.metric("gpt2kit_generation_tokens_total")
    with cores_used(server) as cores:
        open_requests = await arrive(server.port, prompts, TIMES * peak / NEW, seconds, answers)
        written = await server.metric("gpt2kit_generation_tokens_total") - before
        took = time.perf_counter() - started
    at_end = len(answers)
    await asyncio.gather(*open_requests)
    tell(answers, at_end, written / took, peak)
    print(f"  {cores[0]}")


async def at_once(server: Server, prompts: random.Random, callers: int, seconds: float) -> float:
    """Tokens/s with so many callers, after two seconds for a start."""
    end = time.perf_counter() + seconds + 2

    async def caller() -> None:
        while time.perf_counter() < end:
            answer = await request(server.port, prompts)
            assert answer.status == 200, answer.body

    with cores_used(server) as cores:
        tasks = [asyncio.create_task(caller()) for _ in range(callers)]
        await asyncio.sleep(2)
        started, before = time.perf_counter(), await server.metric("gpt2kit_generation_tokens_total")
        await asyncio.sleep(end - time.perf_counter())
        written = await server.metric("gpt2kit_generation_tokens_total") - before
        rate = written / (time.perf_counter() - started)
        await asyncio.gather(*tasks)
    print(f"  {callers:2} callers: {rate:6.1f} tokens/s; {cores[0]}")
    return rate


async def arrive(
    port: int, prompts: random.Random, rate: float, seconds: float, answers: list[Answer]
) -> set[asyncio.Task[None]]:
    """Send `rate` requests a second and collect their answers; returns those that still wait for one."""

    async def one() -> None:
        answers.append(await request(port, prompts))

    started, sent, tasks = time.perf_counter(), 0, set[asyncio.Task[None]]()
    while (now := time.perf_counter() - started) < seconds:
        while sent < now * rate:
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        await asyncio.sleep(0.005)
    return tasks


async def request(port: int, prompts: random.Random) -> Answer:
    prompt = [prompts.randrange(50_000) for _ in range(16)]
    return await complete(port, prompt=prompt, max_tokens=NEW, ignore_eos=True)


def tell(answers: list[Answer], at_end: int, rate: float, peak: float) -> None:
    print(f"  under load {rate:.1f} tokens/s, {rate / peak:.3f} of the peak")
    statuses = Counter(answer.status for answer in answers)
    print(f"  answers by status: {dict(statuses)}, {at_end} of them before the last request was sent")
    for status in statuses:
        seconds = [answer.seconds for answer in answers if answer.status == status]
        print(
            f"  status {status}: median {percentile(seconds, 0.5) * 1000:.1f} ms,"
            f" 99 % within {percentile(seconds, 0.99) * 1000:.1f} ms, slowest {max(seconds) * 1000:.1f} ms"
        )
    kept = {answer.headers.get("retry-after") for answer in answers if answer.status == 429}
    print(f"  Retry-After of the refused: {sorted(map(str, kept))}")


if __name__ == "__main__":
    main()
