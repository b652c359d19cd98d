import contextlib
import http.client
import json
import signal
import socket
import threading
import time

import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

import gpt2kit
from gpt2kit.config.serving import ServingConfig
from gpt2kit.serve import create_app
from gpt2kit.serve.server import Server


@pytest.fixture(scope="session")
def client_of():
    """A client of a server of `model`, ready; `options` are those of `create_app`. Its engine gives exact bits."""

    @contextlib.contextmanager
    def ready(model, **options):
        app = create_app(model, engine="reference", **options)
        with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
            while client.get("/readyz").status_code == 503:
                time.sleep(0.01)
            yield client

    return ready


@pytest.fixture(scope="session")
def api(golden, client_of):
    """A client of a server of the golden model, whose window is 56; tests share it."""
    with client_of(golden / "hf-safetensors", config=ServingConfig(chat_template="plain")) as client:
        yield client


@pytest.fixture(scope="session")
def local(golden):
    """The same model without a server."""
    with gpt2kit.load(golden / "hf-safetensors", engine="reference") as generator:
        yield generator


@pytest.fixture(scope="session")
def ask(api):
    """Posts JSON; the answer, which must be 200."""

    def asked(path, **body):
        response = api.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    return asked


@pytest.fixture(scope="session")
def complete(ask):
    """An answer of /v1/completions."""
    return lambda **body: ask("/v1/completions", **body)


@pytest.fixture(scope="session")
def stream(api):
    """The chunks of a stream, which must end with [DONE]."""

    def streamed(path="/v1/completions", **body):
        response = api.post(path, json={**body, "stream": True})
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        *events, done, rest = response.text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events if not event.startswith(":")]

    return streamed


@pytest.fixture(scope="session")
def refuse(api):
    """Posts a body; status and error of the refusal."""

    def refused(path="/v1/completions", **body):
        # Python's own writer, for it also writes what is no good JSON.
        response = api.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert response.status_code >= 400, response.text
        assert response.headers["x-should-retry"] == "false"
        error = response.json()["error"]
        assert {"message", "type", "param", "code"} <= error.keys()
        return response.status_code, error

    return refused


class Counting:
    """An engine that counts on: after id 7 comes 8. It may be slow, wait at a gate, or fail at its n-th step."""

    exact_in_batches = True

    def __init__(self, config, slots, seconds, gate, fault, at):
        self.config, self.slots, self.capacity = config, slots, slots * config.window
        self.seconds, self.gate, self.fault, self.at = seconds, gate, fault, at
        self.steps = 0

    def step(self, rows):
        self.steps += 1
        if self.gate:
            assert self.gate.wait(30), "a test left its gate closed"
        time.sleep(self.seconds)
        if self.fault and self.steps == self.at:
            raise self.fault
        kept = {"none": slice(0, 0), "last": slice(-1, None), "all": slice(None)}
        ids_R = np.array([id for row in rows for id in row.ids[kept[row.logits]]], np.int64)
        return 50 * np.eye(self.config.vocab_size, dtype=np.float32)[(ids_R + 1) % self.config.vocab_size]

    def truncate(self, slot, length):
        pass

    def share(self, source, target, length):
        pass

    def close(self):
        pass


@pytest.fixture(scope="session")
def counting():
    """Makes what `create_app(engine=...)` takes: see Counting."""

    def make(seconds=0.0, gate=None, fault=None, at=1):
        return lambda checkpoint, slots: Counting(checkpoint.config, slots, seconds, gate, fault, at)

    return make


class Client:
    """Asks a server over real sockets, with nothing but the standard library."""

    def __init__(self, address, app=None, server=None, thread=None):
        self.address, self.app, self.server, self.thread = address, app, server, thread

    def connect(self, method, path, body=None, headers=None):
        """A connection on which the request has been sent."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        connection.request(
            method, path, body and json.dumps(body), {"Content-Type": "application/json"} | (headers or {})
        )
        return connection

    def ask(self, method, path, body=None, headers=None):
        """Status, headers, and the body: read as JSON if it is."""
        with contextlib.closing(self.connect(method, path, body, headers)) as connection:
            answer = connection.getresponse()
            said = answer.read()
            as_json = answer.headers["content-type"].startswith("application/json")
            return answer.status, answer.headers, json.loads(said) if as_json else said.decode()

    def neglect(self, **fields):
        """A socket on which a stream was asked for; who holds it reads as little as he likes."""
        body = json.dumps({"prompt": "a", "temperature": 0, "stream": True, **fields})
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(self.address)
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        return connection

    def complete(self, **fields):
        """Status, headers and JSON of a completion; the greedy continuation of "a" by default."""
        return self.ask("POST", "/v1/completions", {"prompt": "a", "temperature": 0, **fields})

    def begin(self, **fields):
        """A connection on which a completion has been asked for."""
        return self.connect("POST", "/v1/completions", {"prompt": "a", "temperature": 0, **fields})

    def metric(self, name):
        """A figure of /metrics by its name, with its labels if it has any."""
        lines = self.ask("GET", "/metrics")[2].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"gpt2kit_{name} ")), None)

    def until(self, true, seconds=5.0):
        """Waits until `true()`; fails if that lasts longer than `seconds`."""
        late = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < late, "it never came true"
            time.sleep(0.01)

    def terminate(self):
        """Does to the server what a signal does."""
        self.server.handle_exit(signal.SIGTERM, None)

    def until_ended(self, seconds=20):
        """Waits for the server's end; how long that took."""
        begun = time.monotonic()
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the server does not end"
        return time.monotonic() - begun

    def stop(self):
        self.server.should_exit = True
        self.until_ended()

    def until_ready(self):
        self.until(lambda: self.ask("GET", "/readyz")[0] == 200, 20)
        return self


@pytest.fixture(scope="session")
def client():
    """Makes a client of the server at an address."""
    return Client


@pytest.fixture
def serve(tiny_checkpoint):
    """Starts a real server of an application, or of what `create_app` takes, in a thread; it ends with the test."""
    with contextlib.ExitStack() as running:

        def start(*models, app=None, config=None, small_buffers=False, **options):
            config = config or ServingConfig()
            app = app or create_app(*models or [tiny_checkpoint], config=config, **options)
            if not hasattr(app.state, "worker"):  # mounted in somebody else's
                server = uvicorn.Server(uvicorn.Config(app, log_config=None))
            else:
                server = Server(app, config, lambda line: None)
            listener = socket.create_server(("127.0.0.1", 0))
            if small_buffers:  # else the system takes megabytes that nobody reads
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            client = Client(listener.getsockname(), app, server, thread)
            thread.start()
            running.callback(client.stop)
            return client

        yield start
