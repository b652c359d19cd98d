"""Rude peers: what good requests wait for meanwhile, beside without them. Wanted: nobody else waits.

Each kind for some seconds, renewed whenever the server drops one:
    slow readers   4 ask for the longest streams and read 64 bytes a second; beside 4 who read at once what comes
    half-open      64 connect and say nothing
    slow headers   64 send a byte of their request every 0.2 s
    slow bodies    64 announce a body and send a byte of it every 0.2 s
    garbage        16 send noise, TLS greetings, endless lines and wrong lengths, one after the other
The good requests come one after the other, 16 tokens each. A tiny model, because the server's own part is what is
measured. Usage: rude.py [SECONDS for each kind]
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable

from served import Server, complete, completion_bytes, cores_used, events, heading, percentile, random_model, serving

LONG = {"prompt": "Once", "max_tokens": 16_000, "ignore_eos": True}
GARBAGE = (
    random.Random(0).randbytes(2000),
    bytes.fromhex("16030100ca010000c60303") + random.Random(1).randbytes(200),  # a TLS greeting
    b"GET / HTTP/1.1\r\nx: " + b"a" * 300_000,
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\ncontent-length: 20\r\n\r\n{}",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n" * 2000,
    b"GET /v1/models HTTP/1.1\r\n\r\n",  # no host
    completion_bytes(prompt="a").replace(b'{"prompt"', b'{"\xff\xfe"'),
)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    heading(f"good requests of 16 tokens beside rude peers, random tiny, {seconds:.0f} s for each kind")
    with serving(random_model("tiny")) as server:
        asyncio.run(beside_all(server, seconds))


async def beside_all(server: Server, seconds: float) -> None:
    await beside(server, "nobody", 0, half_open, 3)  # warm
    for name, peers, peer in (
        ("nobody", 0, half_open),
        ("4 quick readers", 4, quick_reader),
        ("4 slow readers", 4, slow_reader),
        ("64 half-open", 64, half_open),
        ("64 slow headers", 64, slow_headers),
        ("64 slow bodies", 64, slow_body),
        ("16 with garbage", 16, garbage),
        ("nobody", 0, half_open),
    ):
        print(await beside(server, name, peers, peer, seconds))
    await asyncio.sleep(1)
    print(f"  afterwards: running {await server.running()}, waiting {await server.waiting()}")


async def beside(server: Server, name: str, peers: int, peer: Callable[[int], Awaitable[None]], seconds: float) -> str:
    visits = 0

    async def again() -> None:
        nonlocal visits
        while True:
            visits += 1
            try:
                await peer(server.port)
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(again()) for _ in range(peers)]
    await asyncio.sleep(0.5)
    waited: list[float] = []
    end = time.perf_counter() + seconds
    with cores_used(server) as cores:
        while time.perf_counter() < end:
            answer = await complete(server.port, prompt="Good", max_tokens=16, ignore_eos=True, seed=1)
            assert answer.status == 200, answer.body
            waited.append(answer.seconds * 1000)
    for task in tasks:
        task.cancel()
    faults = [fault for fault in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(fault, Exception)]
    assert not faults, faults
    return (
        f"  {name:16}{len(waited):6} good requests: median {percentile(waited, 0.5):6.1f} ms,"
        f" 99 % within {percentile(waited, 0.99):6.1f}, slowest {max(waited):6.1f};"
        f" {visits} visits\n    {cores[0]}"
    )


async def quick_reader(port: int) -> None:
    async for _ in events(port, **LONG):
        pass


async def slow_reader(port: int) -> None:
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=small, limit=1024)
    try:
        writer.write(completion_bytes(stream=True, **LONG))
        while await reader.read(64):
            await asyncio.sleep(1)
    finally:
        writer.close()


async def half_open(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.read()
    finally:
        writer.close()


async def slow_headers(port: int) -> None:
    await byte_by_byte(port, b"", completion_bytes(prompt="slow"))


async def slow_body(port: int) -> None:
    head, _, body = completion_bytes(prompt="slow" * 100).partition(b"\r\n\r\n")
    await byte_by_byte(port, head + b"\r\n\r\n", body)


async def byte_by_byte(port: int, at_once: bytes, slowly: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(reader.read())
    try:
        writer.write(at_once)
        for byte in slowly:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.2)
    finally:
        answer.cancel()
        writer.close()


rubbish = itertools.cycle(GARBAGE)


async def garbage(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(next(rubbish))
        await asyncio.wait_for(reader.read(), 0.5)
    except TimeoutError:
        pass
    finally:
        writer.close()


if __name__ == "__main__":
    main()
