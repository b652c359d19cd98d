"""Real sockets against a real server: whoever is slow, silent or garbled is shown out, and nobody else waits."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import pytest
import uvicorn

from gpt2kit.serve.protocol import DeadlineProtocol

pytestmark = pytest.mark.slow  # real servers, threads and clocks

GOOD = b"GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
LARGE = 1 << 24  # bytes; more than the buffers of two sockets hold


class Impatient(DeadlineProtocol):
    """The limits of a server, so short that a test can wait for them."""

    seconds_for_headers = 0.3
    seconds_for_body = 0.6
    seconds_for_reader = 0.5
    max_connections = 20


class App:
    """Echoes, answers in one large piece or in small ones, slow or without end; remembers that the reader is gone."""

    def __init__(self):
        self.gone = threading.Event()

    async def __call__(self, scope, receive, send):
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        else:
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/drip":
            for _ in range(15):
                await send({"type": "http.response.body", "body": b"drip", "more_body": True})
                await asyncio.sleep(0.1)
        if scope["path"] == "/flood":
            leaving = asyncio.ensure_future(receive())
            while not leaving.done():
                await send({"type": "http.response.body", "body": bytes(4096), "more_body": True})
                await asyncio.sleep(0)
            self.gone.set()
        if scope["path"] == "/large":
            body = bytes(LARGE)
        await send({"type": "http.response.body", "body": body or b"good"})


@pytest.fixture(scope="module")
def app():
    return App()


@pytest.fixture(scope="module")
def address(app):
    """Where a server listens while these tests run."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=Impatient, ws="none", lifespan="off", log_config=None, timeout_keep_alive=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive(), "a connection keeps the server from stopping"


@pytest.fixture
def connect(address):
    """Opens a connection that lasts as long as the test."""
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection(address, timeout=5))


def all_of(connection):
    """What comes until the server hangs up."""
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def answer_of(connection):
    """(status, error) of the one answer before the server hangs up."""
    head, _, body = all_of(connection).partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head.lower()
    assert b"\r\nx-content-type-options: nosniff" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]


def assert_others_are_served(connect):
    began = time.monotonic()
    assert_served(connect())
    assert time.monotonic() - began < 0.5


def assert_served(connection):
    connection.sendall(GOOD)
    answer = b""
    while not answer.endswith(b"0\r\n\r\n"):
        answer += connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "sent", [b"G", b"GET / HTT", GOOD[:-2], GOOD[:-1]], ids=["letter", "line", "fields", "all but one"]
)
def test_a_head_that_does_not_end_is_answered_408(connect, sent):
    slow = connect()
    slow.sendall(sent)
    assert_others_are_served(connect)
    status, error = answer_of(slow)
    assert (status, error["code"]) == (408, "request_timeout")


def test_a_head_that_comes_letter_by_letter_has_no_more_time(connect):
    slow, began = connect(), time.monotonic()
    with contextlib.suppress(ConnectionError):
        for letter in GOOD[:-1]:
            slow.sendall(bytes([letter]))
            time.sleep(0.02)
    assert time.monotonic() - began < 0.6
    assert_others_are_served(connect)


def test_a_silent_connection_is_closed_without_a_word(connect):
    silent = connect()
    assert_others_are_served(connect)
    assert all_of(silent) == b""


@pytest.mark.parametrize(
    "length", [b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
)
def test_a_body_that_does_not_end_is_answered_408(connect, length):
    slow = connect()
    slow.sendall(HEAD + length)
    assert_others_are_served(connect)
    status, error = answer_of(slow)
    assert (status, error["type"]) == (408, "invalid_request_error")


def test_a_slow_body_in_time_is_read(connect):
    slow = connect()
    slow.sendall(HEAD + b"Connection: close\r\nContent-Length: 4\r\n\r\n")
    for letter in b"text":
        time.sleep(0.1)
        slow.sendall(bytes([letter]))
    assert all_of(slow).endswith(b"text\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "garbage",
    [
        bytes(range(256)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # a browser that speaks TLS
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad field\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: ten\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n",
    ],
)
def test_garbage_is_answered_400_in_json(connect, garbage, caplog):
    stranger = connect()
    stranger.sendall(garbage)
    status, error = answer_of(stranger)
    assert (status, error["code"], error["type"]) == (400, "invalid_http", "invalid_request_error")
    assert_others_are_served(connect)
    assert "Traceback" not in caplog.text


def test_a_long_head_is_answered_431(connect):
    stranger = connect()
    stranger.sendall(GOOD[:-2] + b"Cookie: " + b"y" * 20_000)
    status, error = answer_of(stranger)
    assert (status, error["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("path", [b"/flood", b"/large"])
def test_a_reader_that_takes_nothing_is_cut(connect, app, path):
    stuck = connect()
    stuck.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for _ in range(5):
        assert_others_are_served(connect)
        time.sleep(0.2)
    assert path == b"/large" or app.gone.wait(2), "the app is not told"
    with contextlib.suppress(ConnectionResetError):
        assert not all_of(stuck).endswith(b"0\r\n\r\n")


def test_a_slow_reader_that_takes_something_is_kept(connect):
    slow = connect()
    slow.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    count, began = 0, time.monotonic()
    while piece := slow.recv(1 << 20):
        count += len(piece)
        time.sleep(0.1 if time.monotonic() - began < 1.5 else 0)
    assert count > LARGE


def test_a_stream_that_pauses_is_no_slow_reader(connect):
    reader = connect()
    reader.sendall(b"GET /drip HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert all_of(reader).count(b"drip") == 15  # they take 1.5 s, longer than every limit here


def test_one_connection_is_used_again_and_again(connect):
    kept = connect()
    for _ in range(3):
        assert_served(kept)
        time.sleep(0.4)  # longer than a head may take: between two requests uvicorn's own limit holds


def test_the_second_head_has_a_limit_too(connect):
    kept = connect()
    kept.sendall(GOOD + GOOD[:20])
    assert b"HTTP/1.1 200 " in (answers := all_of(kept))
    assert b"HTTP/1.1 408 " in answers


def test_two_requests_at_once_are_answered_in_turn(connect):
    eager = connect()
    eager.sendall(GOOD * 2)
    assert all_of(eager).count(b"HTTP/1.1 200 ") == 2


def test_too_many_connections_are_refused(connect):
    crowd = [connect() for _ in range(Impatient.max_connections)]
    time.sleep(0.1)
    status, error = answer_of(connect())
    assert (status, error["message"]) == (503, "too many connections; try again in a moment")
    for silent in crowd:
        assert all_of(silent) == b""
    assert_others_are_served(connect)


def test_nobody_is_upgraded_to_a_web_socket(connect, caplog):
    stranger = connect()
    stranger.sendall(GOOD[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n")
    assert stranger.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    assert "upgrade" not in caplog.text.lower()
