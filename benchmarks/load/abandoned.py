"""Readers who leave: 200 requests for 10,000 tokens each, given up after half a second; then one good request.

Wanted: nothing is written for nobody (no text running within a second of the last that left), and the good request is
answered within 5 seconds. Half of them stream, half wait for the whole text; half end the connection in order (FIN),
half break it (RST). A random 124M, 8 slots, room for all 200. Usage: abandoned.py [SIZE]
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time

from served import Server, complete, completion_bytes, cores_used, heading, random_model, serving

REQUESTS = 200
PATIENCE = 0.5  # seconds
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 seconds: close() sends RST


def main() -> None:
    size = sys.argv[1] if len(sys.argv) > 1 else "124M"
    heading(f"{REQUESTS} requests of 10,000 tokens given up after {PATIENCE} s, random {size}")
    with serving(random_model(size), "--queue", str(REQUESTS)) as server:
        asyncio.run(leave(server))


async def leave(server: Server) -> None:
    await complete(server.port, prompt="Warm", max_tokens=4)
    with cores_used(server) as cores:
        await crowd_leaves(server)
    print(f"  {cores[0]}")


async def crowd_leaves(server: Server) -> None:
    crowd = asyncio.gather(*(given_up(server.port, number) for number in range(REQUESTS)))
    await asyncio.sleep(PATIENCE * 0.8)
    print(f"  running while they wait: {await server.running()}")
    await crowd
    left = time.perf_counter()
    while (still := await server.running()) and time.perf_counter() - left < 10:
        await asyncio.sleep(0.01)
    print(f"  running {still} after {time.perf_counter() - left:.2f} s, waiting {await server.waiting()}")
    good = await complete(server.port, prompt="A good one", max_tokens=16, ignore_eos=True)
    print(f"  a good request of 16 tokens: status {good.status} after {good.seconds:.2f} s")


async def given_up(port: int, number: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        completion_bytes(prompt=f"Number {number}", max_tokens=10_000, ignore_eos=True, stream=number % 2 == 0)
    )
    await asyncio.sleep(PATIENCE)
    if number % 4 < 2:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        writer.transport.abort()
    else:
        writer.close()


if __name__ == "__main__":
    main()
