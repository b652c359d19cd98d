"""uvicorn's HTTP/1.1 with patience that ends, so that slow, silent and garbled callers keep nobody else waiting.

uvicorn itself closes connections that idle between two requests, and those only (timeout_keep_alive). Errors made here
are OpenAI's JSON, as everywhere. Pass the class to uvicorn.Config(http=...).
"""

from __future__ import annotations

import sys
from asyncio import BaseTransport, TimerHandle, Transport
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt2kit.serve.errors import HttpError, error_response
from gpt2kit.serve.security import SECURITY_HEADERS


class DeadlineProtocol(H11Protocol):
    """One connection. A subclass may set other limits."""

    seconds_for_headers = 10.0
    """For the whole head of a request, from the connection or the head's first byte on."""
    seconds_for_body = 30.0
    """For the whole body of a request."""
    seconds_for_reader = 60.0
    """For a reader to take anything at all of what waits for it."""
    max_connections = 1000
    """Open connections of the server; further ones are refused."""
    max_read = 64 * 1024
    """Bytes read at once: a chunked body of as many tiny chunks is work for a twentieth of a second."""

    _reading: tuple[object, object] | None = None
    _reading_timer: TimerHandle | None = None
    _writing_timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        assert isinstance(transport, Transport), "TCP and Unix sockets have transports that read and write"
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # pause_writing is called as soon as the reader leaves a byte untaken
        if hasattr(transport, "max_size"):
            transport.max_size = self.max_read
        if len(self.connections) > self.max_connections:
            self._refuse(HttpError(503, "too many connections; try again in a moment", headers={"Retry-After": "1"}))
        self._watch_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timers()

    # --- reading ---

    def handle_events(self) -> None:
        super().handle_events()
        self._watch_reading()

    def _watch_reading(self) -> None:
        """Set the clock for what is being read: a head that is due or has begun, or a body."""
        state = self.conn.their_state
        due = state is h11.SEND_BODY or (state is h11.IDLE and (self.cycle is None or self._has_begun()))
        reading = (state, self.cycle) if due and not self.transport.is_closing() else None
        if reading == self._reading:
            return
        if self._reading_timer is not None:
            self._reading_timer.cancel()
        self._reading, self._reading_timer = reading, None
        if reading is not None:
            seconds = self.seconds_for_body if state is h11.SEND_BODY else self.seconds_for_headers
            self._reading_timer = self.loop.call_later(seconds, self._give_up_reading)

    def _has_begun(self) -> bool:
        return bool(self.conn.trailing_data[0])

    def _give_up_reading(self) -> None:
        if self.conn.their_state is h11.IDLE and not self._has_begun():
            self.transport.close()
        elif self.conn.our_state is h11.SEND_BODY:
            self.cycle.keep_alive = False  # the answer goes on; uvicorn hangs up after it
        else:
            self._refuse(HttpError(408, "the request came too slowly", code="request_timeout"))

    def _should_upgrade(self) -> bool:
        return False  # no WebSockets here, and nothing to log about whoever asks for them

    def send_400_response(self, msg: str) -> None:
        problem = sys.exc_info()[1]  # uvicorn calls this where it catches what h11 has raised
        if isinstance(problem, h11.RemoteProtocolError) and problem.error_status_hint == 431:
            self._refuse(HttpError(431, "the head of the request is too long", code="headers_too_large"))
        else:
            self._refuse(HttpError(400, f"not a valid HTTP/1.1 request: {problem or msg}", code="invalid_http"))

    def _refuse(self, error: HttpError) -> None:
        """Answer in place of the app, if no answer has begun, and hang up."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the app still sends goes nowhere
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = error_response(error)
            answer.headers.update({**SECURITY_HEADERS, "Connection": "close"})
            headers = [*self.server_state.default_headers, *answer.raw_headers]
            lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
            lines += [name + b": " + value for name, value in headers]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()

    # --- writing ---

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing_timer is not None:
            self._writing_timer.cancel()

    def _watch_writing(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._writing_timer = self.loop.call_later(self.seconds_for_reader, self._give_up_writing, waiting)

    def _give_up_writing(self, waited: int) -> None:
        if self.transport.get_write_buffer_size() < waited:
            self._watch_writing()
        else:
            self.transport.abort()

    def _stop_timers(self) -> None:
        for timer in (self._reading_timer, self._writing_timer):
            if timer is not None:
                timer.cancel()
