"""Answers that are still being written: whole as JSON, or a stream of server-sent events.

Both race the job against the reader's leaving, for a server cancels no handler by itself, and both give the slots back
whatever happens.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gpt2kit.errors import Gpt2kitError
from gpt2kit.generate.texts import Piece
from gpt2kit.serve.errors import HttpError, as_http_error, error_body
from gpt2kit.serve.job import Job
from gpt2kit.serve.metrics import Metrics
from gpt2kit.serve.ordering import Order
from gpt2kit.serve.worker import Worker

PING_SECONDS = 1.0  # between two comments to a reader for whom there is nothing yet
DONE = b"data: [DONE]\n\n"
LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}  # to readers who split with str.splitlines


class Answer(Protocol):
    """How pieces of text are told in one route's JSON."""

    def take(self, piece: Piece) -> None:
        """Add a piece."""

    def whole(self) -> Response:
        """All of it, when every text is whole."""


class StreamedAnswer(Answer, Protocol):
    """The same, chunk by chunk."""

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """Add a piece; what is to be told now, if anything is."""

    def last_chunks(self) -> list[dict[str, Any]]:
        """What follows the last text in a stream."""


class JobResponse(Response):
    """Waits until every text is whole."""

    def __init__(self, request: Request, order: Order, answer: Answer) -> None:
        """Hands the order to the server's worker. Raises what `Worker.submit` raises."""
        super().__init__()
        state = request.app.state
        self._worker: Worker = state.worker
        self._metrics: Metrics = state.metrics
        self._deadline: float = state.config.deadline
        self._readers: CapacityLimiter = state.readers
        self._answer = answer
        self._job: Job = self._worker.submit(order)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._metrics.timing(self._job) as timing:
            try:
                stayed = await _unless_reader_leaves(receive, self._work(send, timing))
            finally:
                self._worker.cancel(self._job)
        if not stayed:
            self._metrics.disconnected.inc()
            return
        await self._finish(scope, receive, send)

    async def _work(self, send: Send, note: Callable[[Sequence[Piece]], None]) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                while not self._job.over:
                    await self._tell(await self._next(send), send, note)
        except TimeoutError:
            raise HttpError(
                504,
                f"the answer was not ready within {self._deadline:g} seconds; ask for fewer tokens",
                code="deadline_exceeded",
            ) from None

    async def _next(self, send: Send) -> list[Piece]:
        return await self._job.take()

    async def _tell(self, pieces: Sequence[Piece], send: Send, note: Callable[[Sequence[Piece]], None]) -> None:
        note(pieces)
        for piece in pieces:
            self._answer.take(piece)

    async def _finish(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await run_sync(self._answer.whole, limiter=self._readers)  # of megabytes, perhaps
        await answer(scope, receive, send)


class StreamedJobResponse(JobResponse):
    """Tells tokens as they come. Comments say how long the queue is; an error in the middle is an event of its own."""

    _answer: StreamedAnswer

    async def _work(self, send: Send, note: Callable[[Sequence[Piece]], None]) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        headers.append((b"x-accel-buffering", b"no"))  # nginx would collect the stream first
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await super()._work(send, note)
            await _send_events(self._answer.last_chunks(), send)
        except Gpt2kitError as error:
            self._worker.cancel(self._job)  # before all else: a reader may be slow
            await _send_events([error_body(as_http_error(error))], send)
        await _send(DONE, send)

    async def _next(self, send: Send) -> list[Piece]:
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    return await self._job.take()
            except TimeoutError:
                await _send(await self._comment(), send)

    async def _comment(self) -> bytes:
        with suppress(TimeoutError):  # in the middle of a long step of thought
            async with asyncio.timeout(PING_SECONDS):
                match await self._worker.waits_for(self._job):
                    case int(place):
                        return f": queued {place}\n\n".encode()
                    case str(model):
                        return f": loading {model}\n\n".encode()
        return b": ping\n\n"

    async def _tell(self, pieces: Sequence[Piece], send: Send, note: Callable[[Sequence[Piece]], None]) -> None:
        note(pieces)
        chunks = [self._answer.chunk(piece) for piece in pieces]
        await _send_events([chunk for chunk in chunks if chunk], send)

    async def _finish(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _unless_reader_leaves(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, which must not end the answer; False if the reader left before it was done."""
    tasks = [asyncio.create_task(work), asyncio.create_task(_left(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
        return not tasks[1].done()  # once the reader has left, the work may run to its end in a moment
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_events(chunks: Sequence[dict[str, Any]], send: Send) -> None:
    if chunks:
        await _send(b"".join(_event(chunk) for chunk in chunks), send)


def _event(chunk: dict[str, Any]) -> bytes:
    told = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return f"data: {told.translate(LINE_ENDS)}\n\n".encode()


async def _send(body: bytes, send: Send) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
