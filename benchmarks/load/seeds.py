"""One seed, one text: alone, among 8 streams, as a whole and as a stream, at temperature 1. Wanted: all equal.

Each of the prompts is written four ways: alone and whole, alone and streamed, and both with seven other streams of
other seeds and lengths beside it, which come and go. torch adds up in another order when rows are beside each other, so
a text may differ where the random number lies within 1e-6 of the border between two tokens.
Usage: seeds.py [PROMPTS] [SIZE]
"""

from __future__ import annotations

import asyncio
import random
import sys

from served import complete, events, heading, random_model, serving

NEW = 100
NEIGHBOURS = 7


def main() -> None:
    prompts = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    size = sys.argv[2] if len(sys.argv) > 2 else "124M"
    heading(f"{prompts} prompts of unlike length, {NEW} tokens at temperature 1, random {size}, 8 slots")
    with serving(random_model(size)) as server:
        asyncio.run(compare(server.port, prompts))


async def compare(port: int, prompts: int) -> None:
    chance = random.Random(0)
    asked = [
        {"prompt": [chance.randrange(50_000) for _ in range(chance.randint(1, 100))], "seed": chance.randrange(2**31)}
        for _ in range(prompts)
    ]
    alone = [await whole(port, **one) for one in asked]
    ways = {"alone, streamed": [await streamed(port, **one) for one in asked]}
    beside = [asyncio.create_task(neighbour(port, number)) for number in range(NEIGHBOURS)]
    await asyncio.sleep(1)
    ways["whole, among 8"] = [await whole(port, **one) for one in asked]
    ways["streamed, among 8"] = [await streamed(port, **one) for one in asked]
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    print(f"  {len(set(alone))} unlike texts, {sum(map(len, alone)):,} characters")
    for way, texts in ways.items():
        equal = [one == other for one, other in zip(alone, texts, strict=True)]
        print(f"  {way:20}{sum(equal)} of {prompts} texts equal to those written alone as a whole")


async def whole(port: int, **fields: object) -> str:
    answer = await complete(port, **FIELDS, **fields)
    return answer.json()["choices"][0]["text"]


async def streamed(port: int, **fields: object) -> str:
    return "".join([event["choices"][0]["text"] async for event in events(port, **FIELDS, **fields)])


async def neighbour(port: int, number: int) -> None:
    chance = random.Random(number)
    while True:
        prompt = [chance.randrange(50_000) for _ in range(chance.randint(1, 100))]
        fields = {"prompt": prompt, "temperature": 1, "max_tokens": chance.randint(5, 200), "ignore_eos": True}
        async for _ in events(port, **fields):
            pass


FIELDS = {"temperature": 1, "max_tokens": NEW, "ignore_eos": True}

if __name__ == "__main__":
    main()
