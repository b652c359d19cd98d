"""How many may ask at once, what those hear who wait, and that nobody waits for one who asks for much."""

import contextlib
import re
import threading
import time

import pytest

from gpt2kit.config.serving import ServingConfig

pytestmark = pytest.mark.slow  # real servers, threads and clocks

ENDLESS = {"max_tokens": 10_000, "ignore_eos": True}


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


def test_one_request_too_many_is_refused_at_once(serve, counting, gate):
    server = serve(config=ServingConfig(slots=2, queue=3), engine=counting(gate=gate)).until_ready()
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(contextlib.closing(server.begin())) for _ in range(2 + 3)]
        server.until(lambda: server.app.state.worker.jobs == 5)
        begun = time.monotonic()
        status, headers, answer = server.complete()
        assert time.monotonic() - begun < 0.5
        assert (status, headers["retry-after"], headers["x-should-retry"]) == (429, "1", "true")
        assert (answer["error"]["type"], answer["error"]["code"]) == ("rate_limit_error", "queue_full")
        assert server.metric('requests_rejected_total{status="429"}') == 1
        gate.set()
        assert [connection.getresponse().status for connection in taken] == [200] * 5
    assert server.complete()[0] == 200


def test_who_waits_hears_how_many_come_before_him(serve, counting):
    server = serve(config=ServingConfig(slots=1), engine=counting(seconds=0.01)).until_ready()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(server.begin(**ENDLESS)))
        server.until(lambda: server.metric("texts_running") == 1)
        stack.enter_context(contextlib.closing(server.begin(n=2, **ENDLESS)))
        server.until(lambda: server.metric("texts_waiting") == 2)
        last = stack.enter_context(contextlib.closing(server.begin(stream=True)))
        # Requests take turns: of the two texts before it, one comes first.
        assert last.getresponse().readline() == b": queued 1\n"


@pytest.mark.slow
def test_a_slow_step_is_bridged_by_pings(serve, counting, gate):
    server = serve(engine=counting(gate=gate)).until_ready()
    with contextlib.closing(server.begin(stream=True, max_tokens=1)) as connection:
        answer = connection.getresponse()
        assert [answer.readline(), answer.readline()] == [b": ping\n", b"\n"]
        gate.set()
        assert re.match(rb"data: \{", answer.readline())


def test_many_texts_of_one_request_starve_no_other(serve, counting):
    config = ServingConfig(slots=2)
    server = serve(config=config, engine=counting(seconds=0.002)).until_ready()
    greedy = {"prompt": ["a"] * 100, "max_tokens": 50, "ignore_eos": True}
    with contextlib.closing(server.begin(**greedy)):
        server.until(lambda: server.metric("texts_waiting") > 90)
        assert server.complete(max_tokens=5)[0] == 200
        assert server.metric("texts_waiting") > 80


def test_more_texts_than_slots_are_written_in_turn(serve, counting):
    server = serve(config=ServingConfig(slots=2), engine=counting()).until_ready()
    status, _, answer = server.complete(prompt=["a", "b", "c"], n=3, max_tokens=2)
    assert (status, [choice["index"] for choice in answer["choices"]]) == (200, list(range(9)))
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == [text for text in dict.fromkeys(texts) for _ in range(3)]  # three of each prompt, side by side
    assert len(set(texts)) == 3
