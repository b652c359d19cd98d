"""Whoever leaves frees his slots within a step, however he leaves. Real sockets against a real server."""

import contextlib
import socket
import struct
import threading
import time

import pytest

from gpt2kit.config.serving import ServingConfig

pytestmark = pytest.mark.slow  # real servers, threads and clocks

ENDLESS = {"max_tokens": 10_000, "ignore_eos": True}


def hang_up(connection):
    """The polite way: FIN."""
    connection.close()


def reset(connection):
    """As a killed program does: RST."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture
def slow_server(serve, counting):
    """Two slots; a text of 10,000 tokens takes it 20 seconds."""
    config = ServingConfig(slots=2, queue=100)
    return serve(config=config, engine=counting(seconds=0.002)).until_ready()


def idle(server):
    return server.metric("texts_running") == server.metric("texts_waiting") == 0 == server.app.state.worker.jobs


@pytest.mark.parametrize("leave", [hang_up, reset])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_reader_who_leaves_is_written_for_no_more(slow_server, leave, streamed):
    connection = slow_server.begin(stream=streamed, n=2, **ENDLESS)
    slow_server.until(lambda: slow_server.metric("texts_running") == 2)
    leave(connection)
    slow_server.until(lambda: idle(slow_server), seconds=1)
    assert slow_server.metric("client_disconnects_total") == 1


@pytest.mark.slow
@pytest.mark.parametrize("leave", [hang_up, reset])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_reader_who_leaves_the_queue_is_not_waited_for(slow_server, leave, streamed):
    with contextlib.closing(slow_server.begin(n=2, **ENDLESS)):
        slow_server.until(lambda: slow_server.metric("texts_running") == 2)
        queued = slow_server.begin(stream=streamed, n=3, **ENDLESS)
        slow_server.until(lambda: slow_server.metric("texts_waiting") == 3)
        leave(queued)
        slow_server.until(lambda: slow_server.metric("texts_waiting") == 0, seconds=1)
        assert slow_server.metric("texts_running") == 2


@pytest.mark.parametrize("streamed", [True, False])
def test_a_reader_who_leaves_while_his_model_is_read_is_forgotten(serve, counting, golden, streamed):
    gate = threading.Event()
    opened = []

    def open_second_slowly(checkpoint, slots):
        opened.append(checkpoint)
        assert len(opened) == 1 or gate.wait(30)
        return counting()(checkpoint, slots)

    models = golden / "hf-safetensors", golden / "hf-v5"
    server = serve(*models, engine=open_second_slowly).until_ready()
    connection = server.begin(model="hf-v5", stream=streamed, **ENDLESS)
    server.until(lambda: server.metric("texts_waiting") == 1)
    connection.close()
    server.until(lambda: idle(server), seconds=1)
    gate.set()
    server.until(lambda: server.metric("models_loaded") == 2)
    assert idle(server)


def test_many_impatient_readers_leave_nothing_behind(slow_server):
    """vLLM's test_request_cancellation, scaled to a second: given up, then a good one is answered in time."""
    impatient = [slow_server.begin(stream=bool(number % 2), **ENDLESS) for number in range(40)]
    time.sleep(0.3)
    for connection in impatient:
        connection.close()
    begun = time.monotonic()
    status, _, answer = slow_server.complete(max_tokens=5)
    assert (status, answer["usage"]["completion_tokens"]) == (200, 5)
    assert time.monotonic() - begun < 5
    slow_server.until(lambda: idle(slow_server), seconds=1)


def test_a_job_over_the_deadline_is_written_no_more(serve, counting):
    server = serve(config=ServingConfig(deadline=0.2), engine=counting(seconds=0.002)).until_ready()
    status, _, answer = server.complete(**ENDLESS)
    assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")
    server.until(lambda: idle(server), seconds=1)
    _, _, stream = server.complete(stream=True, **ENDLESS)
    *_, error, done, nothing = stream.split("\n\n")
    assert '"code":"deadline_exceeded"' in error
    assert (done, nothing) == ("data: [DONE]", "")
    server.until(lambda: idle(server), seconds=1)


def test_a_job_over_the_deadline_is_written_no_more_also_where_nobody_reads(serve, counting):
    server = serve(config=ServingConfig(deadline=2), engine=counting(), small_buffers=True).until_ready()
    with server.neglect(logprobs=20, **ENDLESS):
        server.until(lambda: server.metric("texts_running") == 1)
        server.until(lambda: idle(server), seconds=5)


@pytest.mark.slow
def test_a_reader_who_takes_nothing_holds_up_nobody(serve, counting):
    config = ServingConfig(slots=2)
    server = serve(config=config, engine=counting(seconds=0.002), small_buffers=True).until_ready()
    with server.neglect(logprobs=20, max_tokens=300, ignore_eos=True):
        server.until(lambda: server.metric("texts_running") == 1)
        begun = time.monotonic()
        for _ in range(5):
            assert server.complete(max_tokens=10)[0] == 200
        assert time.monotonic() - begun < 2
        server.until(lambda: idle(server), seconds=10)  # written to its end, whether it is read or not
        assert server.metric("client_disconnects_total") == 0
    server.until(lambda: server.metric("client_disconnects_total") == 1)
