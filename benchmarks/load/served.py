"""A server process of our own, and the cheapest client that can load it: asyncio's streams, no HTTP library.

The client shares the machine with the server, so every script says who used how much of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.jobs.init import init

sys.path.append(str(Path(__file__).parents[1]))
from turns import heading as heading

VOCABULARY = Path(__file__).parents[3] / "shared" / "data"


def random_model(size: str) -> Path:
    """A model of this size that has learnt nothing, with GPT-2's vocabulary; made once and kept for the next script."""
    directory = Path(tempfile.gettempdir()) / "gpt2kit-load" / size
    if not directory.exists():
        init(size, VOCABULARY, directory)
    return directory


@dataclass(frozen=True)
class Server:
    """A running `gpt2 serve`."""

    process: subprocess.Popen[str]
    port: int

    def resident_bytes(self) -> int:
        """Memory of the process that is in RAM now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """Processor time it has used so far, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def metric(self, name: str) -> float:
        """The sum of all values of one of its metrics."""
        text = (await get(self.port, "/metrics")).body.decode()
        found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        assert found, f"the server has no metric {name}:\n{text}"
        return sum(map(float, found))

    async def running(self) -> int:
        """Texts that it writes now."""
        return int(await self.metric("gpt2kit_texts_running"))

    async def waiting(self) -> int:
        """Requests that wait for their turn."""
        return int(await self.metric("gpt2kit_texts_waiting"))


@contextmanager
def serving(model: Path, *options: str) -> Iterator[Server]:
    """A server of `model` on a free port, ready; it ends with the block."""
    command = [sys.executable, "-m", "gpt2kit", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    assert process.stderr is not None
    try:
        said = ""
        while not (found := re.search(r"serving .* at http://[^:]+:(\d+)", said)):
            line = process.stderr.readline()
            assert line, f"the server ended: {said}"
            said += line
        threading.Thread(target=process.stderr.read, daemon=True).start()  # so that its pipe never fills
        server = Server(process, int(found[1]))
        asyncio.run(until_ready(server))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def until_ready(server: Server) -> None:
    while (await get(server.port, "/readyz")).status != 200:
        await asyncio.sleep(0.1)


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> dict:
        return json.loads(self.body)


async def get(port: int, path: str) -> Answer:
    return await exchange(port, request_bytes("GET", path, b""))


async def complete(port: int, **fields: object) -> Answer:
    """One request to /v1/completions, answered as a whole or as a stream that is read to its end."""
    return await exchange(port, completion_bytes(**fields))


def completion_bytes(**fields: object) -> bytes:
    return request_bytes("POST", "/v1/completions", json.dumps(fields).encode())


def request_bytes(method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"content-type: application/json\r\n\r\n" + body


async def exchange(port: int, request: bytes) -> Answer:
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read()
    finally:
        writer.close()
    status, headers = parsed(head)
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(chunks(body))
    return Answer(status, headers, body, time.perf_counter() - started)


def parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in fields}


def chunks(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        yield body[end + 2 : end + 2 + size]
        at = end + size + 4


async def events(port: int, **fields: object) -> AsyncIterator[dict]:
    """The events of a stream as they come; leaving the loop closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(completion_bytes(stream=True, **fields))
        status, _ = parsed(await reader.readuntil(b"\r\n\r\n"))
        assert status == 200, (await reader.read()).decode()
        async for line in reader:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])
    finally:
        writer.close()


@contextmanager
def cores_used(server: Server) -> Iterator[list[str]]:
    """Fills its list with a sentence: how much of the machine the server, this process and others used meanwhile."""
    said: list[str] = []
    started, before = time.perf_counter(), cpu_seconds(server)
    yield said
    took = time.perf_counter() - started
    by_server, by_client, by_all = (
        (later - earlier) / took for later, earlier in zip(cpu_seconds(server), before, strict=True)
    )
    others = max(0.0, by_all - by_server - by_client)
    said.append(f"cores used: server {by_server:.2f}, this client {by_client:.2f}, other programs {others:.2f}")


def cpu_seconds(server: Server) -> tuple[float, float, float]:
    """Processor time of the server, of this process, and of the whole machine."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    ticks = [int(field) for field in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:]]
    idle = ticks[3] + ticks[4]  # idle, iowait
    guests = ticks[8] + ticks[9]  # counted in user and nice already
    return server.cpu_seconds(), own.ru_utime + own.ru_stime, (sum(ticks) - idle - guests) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the others do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
