"""What a signal does: requests end within the grace, new ones are refused, and then it is over.

The cases of vLLM's tests/entrypoints/serve/test_shutdown.py, and those of readers who do not read.
"""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from gpt2kit.config.serving import ServingConfig

pytestmark = pytest.mark.slow  # real servers, threads and clocks

ENDLESS = {"max_tokens": 10_000, "ignore_eos": True}
LONG = {"max_tokens": 200, "ignore_eos": True}  # half a second


@pytest.fixture
def writing(serve, counting):
    """Starts a server with `grace`, and two requests that it is answering: one streamed, one that waits."""
    with contextlib.ExitStack() as stack:

        def start(grace, **fields):
            server = serve(config=ServingConfig(grace=grace), engine=counting(seconds=0.002)).until_ready()
            streamed, waiting = (server.begin(stream=stream, **fields) for stream in (True, False))
            stack.callback(streamed.close)
            stack.callback(waiting.close)
            server.until(lambda: server.metric("texts_running") == 2)
            return server, streamed, waiting

        yield start


@pytest.fixture
def program(golden, client):
    """Starts `gpt2 serve` as a program of its own; the process, and a client of it."""
    with contextlib.ExitStack() as stack:

        def start(*options):
            words = [sys.executable, "-m", "gpt2kit", "serve", golden / "hf-safetensors", "--port", 0, *options]
            process = stack.enter_context(subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE))
            stack.callback(process.kill)
            said = process.stderr.readline().decode()
            port = re.fullmatch(r"gpt2: serving hf-safetensors at http://127\.0\.0\.1:(\d+)/\n", said)[1]
            return process, client(("127.0.0.1", int(port))).until_ready()

        yield start


def events_of(connection):
    """The events of a stream, which must end with [DONE]."""
    *events, done, rest = connection.getresponse().read().decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: ")]


def test_what_was_begun_is_finished_and_nothing_new_taken(writing):
    server, streamed, waiting = writing(30, **LONG)
    server.terminate()
    status, headers, answer = server.complete()
    assert (status, headers["retry-after"], answer["error"]["code"]) == (503, "1", "draining")
    assert server.ask("GET", "/readyz")[2]["error"]["code"] == "draining"
    assert server.ask("GET", "/livez")[0] == 200
    assert events_of(streamed)[-1]["choices"][0]["finish_reason"] == "length"
    answer = waiting.getresponse()
    assert (answer.status, json.load(answer)["usage"]["completion_tokens"]) == (200, 200)
    assert server.until_ended() < 1


@pytest.mark.parametrize("grace", [0, 0.3])
def test_what_is_not_finished_in_time_is_told_so(writing, grace):
    server, streamed, waiting = writing(grace, **ENDLESS)
    server.terminate()
    assert server.until_ended() < grace + 1
    assert events_of(streamed)[-1]["error"]["code"] == "draining"
    answer = waiting.getresponse()
    assert (answer.status, json.load(answer)["error"]["code"]) == (503, "draining")


def test_a_second_signal_stops_at_once(writing):
    server, streamed, waiting = writing(30, **ENDLESS)
    server.terminate()
    time.sleep(0.2)
    server.terminate()
    assert server.until_ended() < 1
    assert "stopped before this answer was whole" in events_of(streamed)[-1]["error"]["message"]
    assert waiting.getresponse().status == 503


def test_an_idle_server_ends_at_once_and_leaves_no_thread(serve, counting):
    before = set(threading.enumerate())
    server = serve(engine=counting()).until_ready()
    with contextlib.closing(server.connect("GET", "/health")) as idle:
        assert idle.getresponse().read()
        server.terminate()
        assert server.until_ended() < 1
    assert not [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("gpt2kit")]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address)


def test_a_server_that_is_still_reading_its_model_ends_at_once(serve, counting):
    gate = threading.Event()
    server = serve(engine=lambda *asked: gate.wait(10) and counting()(*asked))
    assert server.ask("GET", "/readyz")[2]["error"]["code"] == "loading"
    server.terminate()
    assert server.until_ended() < 1
    gate.set()


@pytest.mark.slow
def test_a_step_that_does_not_end_cannot_hold_a_second_signal(serve, counting):
    gate = threading.Event()
    server = serve(engine=counting(gate=gate)).until_ready()
    with contextlib.closing(server.begin()):
        server.until(lambda: server.metric("texts_running") == 1)
        server.terminate()
        server.terminate()
        assert server.until_ended() < 3
    gate.set()


@pytest.mark.slow  # seconds are what it is about
def test_a_reader_who_takes_nothing_is_waited_for_a_few_seconds(serve, counting):
    config = ServingConfig(grace=0.5)
    server = serve(config=config, engine=counting(), small_buffers=True).until_ready()
    with server.neglect(logprobs=20, **ENDLESS):
        server.until(lambda: server.metric("texts_running") == 1)
        server.terminate()
        assert 5 < server.until_ended() < 0.5 + 5 + 1


@pytest.mark.slow  # starts programs
@pytest.mark.parametrize(
    ("signals", "grace", "status"),
    [
        ([signal.SIGTERM], 30, 0),
        ([signal.SIGTERM], 0, 0),
        ([signal.SIGTERM, signal.SIGTERM], 30, 0),
        ([signal.SIGINT], 0, 130),
    ],
)
def test_a_program_ends_with_a_status_and_without_a_traceback(program, signals, grace, status):
    process, client = program("--grace", grace)
    is_finished = grace > 0 and len(signals) == 1
    asked = {"max_tokens": 2000 if is_finished else 10_000, "ignore_eos": True}
    with contextlib.closing(client.begin(stream=True, **asked)) as connection:
        answer = connection.getresponse()
        answer.readline()
        for sent in signals:
            process.send_signal(sent)
            time.sleep(0.15)
        assert (b'"finish_reason":"length"' in answer.read()) == is_finished
    said = process.stderr.read().decode()
    assert process.wait(10) == status
    assert "Traceback" not in said
    assert ("finishing 1 request, for 30 seconds" in said) == (grace > 0)
    socket.create_server(client.address).close()  # the port is free again
