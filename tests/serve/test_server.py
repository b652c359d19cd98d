"""Where a server listens and what it says of that; how it tells that it starts, and that its engine has failed."""

import contextlib
import json
import re
import socket
import threading

import pytest

from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import ConfigError, FormatError, OutOfMemory
from gpt2kit.serve import create_app
from gpt2kit.serve.server import links, run

pytestmark = pytest.mark.slow  # real servers, threads and clocks

ENDLESS = {"max_tokens": 10_000, "ignore_eos": True}


def last_event(connection):
    """What a stream says before [DONE], which must end it."""
    *_, last, done, rest = connection.getresponse().read().decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return json.loads(last.removeprefix("data: "))


def test_until_the_first_model_is_read_a_server_says_so(serve, counting):
    gate = threading.Event()
    server = serve(engine=lambda *asked: gate.wait(10) and counting()(*asked))
    for status, headers, answer in (server.ask("GET", "/health"), server.ask("GET", "/readyz"), server.complete()):
        assert (status, headers["retry-after"], answer["error"]["code"]) == (503, "1", "loading")
    assert server.ask("GET", "/livez")[0] == 200
    assert server.ask("GET", "/v1/models")[2]["data"][0]["loaded"] is False
    gate.set()
    server.until_ready()
    assert server.ask("GET", "/health")[::2] == (200, {"status": "ok"})
    assert server.complete()[0] == 200


def test_a_fault_of_the_engine_turns_its_health_red_and_answers_all_who_wait(serve, counting):
    gate = threading.Event()
    engine = counting(gate=gate, fault=ZeroDivisionError("a bit flipped"), at=5)
    server = serve(config=ServingConfig(slots=2), engine=engine).until_ready()
    with contextlib.ExitStack() as stack:
        streamed, waiting, queued = (
            stack.enter_context(contextlib.closing(server.begin(stream=stream, **ENDLESS)))
            for stream in (True, False, False)
        )
        server.until(lambda: server.app.state.worker.jobs == 3)
        gate.set()
        assert last_event(streamed)["error"]["code"] == "engine_dead"
        for connection in (waiting, queued):
            answer = connection.getresponse()
            assert (answer.status, json.load(answer)["error"]["code"]) == (503, "engine_dead")
    for path in ("/health", "/livez", "/readyz"):
        assert server.ask("GET", path)[2]["error"]["code"] == "engine_dead", path
    assert server.complete()[2]["error"]["code"] == "engine_dead"
    assert server.metric("texts_running") == 0


def test_where_memory_runs_out_the_texts_are_lost_the_server_is_not(serve, counting):
    gate = threading.Event()
    server = serve(engine=counting(gate=gate, fault=OutOfMemory("the texts do not fit"), at=5)).until_ready()
    with (
        contextlib.closing(server.begin(stream=True, **ENDLESS)) as streamed,
        contextlib.closing(server.begin(**ENDLESS)) as waiting,
    ):
        server.until(lambda: server.app.state.worker.jobs == 2)
        gate.set()
        answer = waiting.getresponse()
        assert (answer.status, json.load(answer)["error"]["code"]) == (503, "out_of_memory")
        assert last_event(streamed)["error"]["message"] == "the texts do not fit"
    assert server.ask("GET", "/health")[0] == 200
    assert server.complete(max_tokens=2)[0] == 200


def test_a_first_model_that_cannot_be_read_ends_the_server(tiny_checkpoint, caplog):
    def damaged(checkpoint, slots):
        raise FormatError("model.safetensors", 8, "not a header")

    config = ServingConfig(port=0)
    said = []
    assert run(create_app(tiny_checkpoint, config=config, engine=damaged), config, said.append) is False
    assert len(said) == 1  # never "ready"
    assert [record.getMessage() for record in caplog.records if record.name.startswith("gpt2kit")] == [
        "model.safetensors: not a header (at byte 8)"
    ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("::1", "http://[::1]:80/"),
        ("0.0.0.0", r"http://127.0.0.1:80/ (from other machines: http://{other}:80/)"),
        ("::", r"http://[::1]:80/ (from other machines: http://{other}:80/)"),
    ],
)
def test_what_is_told_is_a_link(host, expected):
    pattern = re.escape(expected).replace(re.escape("{other}"), rf"([0-9.]+|\[[0-9a-f:]+\]|{socket.gethostname()})")
    assert re.fullmatch(pattern, links(host, 80))


def test_the_link_for_other_machines_leads_here():
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        host = re.search(r"from other machines: http://(.*):", links("0.0.0.0", port))[1]
        with socket.create_connection((host, port), timeout=5) as connection:
            here, _ = listener.accept()
            with here:
                assert here.getpeername() == connection.getsockname()


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("no-such-name.invalid", "no address to listen on"),
        ("a..b", "no address to listen on"),
        ("x" * 70, "no address to listen on"),
        ("192.0.2.1", "cannot listen on 192.0.2.1, port 0: "),  # of RFC 5737, nobody's
    ],
)
def test_an_address_that_cannot_be_had_is_explained(tiny_checkpoint, host, problem):
    config = ServingConfig(host=host, port=0)
    with pytest.raises(ConfigError, match=problem):
        run(create_app(tiny_checkpoint, config=config), config, lambda line: None)


def test_a_port_in_use_is_named_with_a_way_out(tiny_checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = ServingConfig(port=port)
        with pytest.raises(ConfigError, match=rf"port {port} of 127\.0\.0\.1 is in use.*--port "):
            run(create_app(tiny_checkpoint, config=config), config, lambda line: None)


def test_as_many_files_may_be_open_as_there_may_be_connections(tiny_checkpoint):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        config = ServingConfig(host="a..b")
        with pytest.raises(ConfigError):
            run(create_app(tiny_checkpoint, config=config), config, lambda line: None)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(4096, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_hundreds_of_connections_at_once_are_all_answered(serve, counting):
    server = serve(config=ServingConfig(queue=1000), engine=counting(seconds=0.001)).until_ready()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(server.begin(max_tokens=3))) for _ in range(300)]
        assert {connection.getresponse().status for connection in connections} == {200}
    assert server.app.state.worker.jobs == 0
