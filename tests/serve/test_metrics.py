"""The figures, after requests of which one knows what they must add up to."""

import contextlib
import re

import pytest

from gpt2kit.config.serving import ServingConfig

pytestmark = pytest.mark.slow  # real servers, threads and clocks

FIVE_TOKENS = {"max_tokens": 5, "ignore_eos": True}


@pytest.fixture
def server(serve, counting):
    return serve(engine=counting()).until_ready()


def figures(server):
    """All samples of /metrics by name and labels."""
    lines = server.ask("GET", "/metrics")[2].splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_a_server_that_nobody_has_asked_has_every_figure(server):
    assert {
        name: value for name, value in figures(server).items() if "_bucket" not in name and "_created" not in name
    } == {
        "gpt2kit_texts_running": 0,
        "gpt2kit_texts_waiting": 0,
        "gpt2kit_models_loaded": 1,
        "gpt2kit_prompt_tokens_total": 0,
        "gpt2kit_generation_tokens_total": 0,
        "gpt2kit_client_disconnects_total": 0,
        "gpt2kit_time_to_first_token_seconds_count": 0,
        "gpt2kit_time_to_first_token_seconds_sum": 0,
        "gpt2kit_inter_token_seconds_count": 0,
        "gpt2kit_inter_token_seconds_sum": 0,
        "gpt2kit_request_seconds_count": 0,
        "gpt2kit_request_seconds_sum": 0,
    }


@pytest.mark.parametrize("streamed", [True, False])
def test_tokens_texts_and_times_are_counted(server, streamed):
    """2 prompts of 3 and 2 tokens, 2 texts of each, 5 tokens a text."""
    assert server.complete(prompt=[[1, 2, 3], [4, 5]], n=2, stream=streamed, **FIVE_TOKENS)[0] == 200
    server.until(lambda: server.metric("request_seconds_count") == 1)
    found = figures(server)
    assert found["gpt2kit_prompt_tokens_total"] == 3 + 2
    assert found["gpt2kit_generation_tokens_total"] == 4 * 5
    assert found['gpt2kit_texts_finished_total{reason="length"}'] == 4
    assert found["gpt2kit_time_to_first_token_seconds_count"] == 1
    assert found["gpt2kit_inter_token_seconds_count"] == 4 * (5 - 1)
    assert found["gpt2kit_client_disconnects_total"] == 0


def test_the_reason_for_an_end_is_a_label(server):
    assert server.complete(prompt=[1], stop_token_ids=[3])[2]["choices"][0]["finish_reason"] == "stop"
    assert server.metric('texts_finished_total{reason="stop"}') == 1
    assert server.metric("generation_tokens_total") == 1


def test_times_are_measured(serve, counting):
    server = serve(engine=counting(seconds=0.05)).until_ready()
    server.complete(max_tokens=3, ignore_eos=True)
    # Three steps of 0.05 s; a busy machine may tell of one late, which makes the next gap shorter.
    assert 0.05 < server.metric("time_to_first_token_seconds_sum") < 0.5
    assert 0.05 < server.metric("inter_token_seconds_sum") < 0.5
    assert 0.15 < server.metric("request_seconds_sum") < 1


def test_a_reader_who_leaves_is_counted_once(serve, counting):
    server = serve(config=ServingConfig(slots=1), engine=counting(seconds=0.01)).until_ready()
    with contextlib.closing(server.begin(n=4, max_tokens=1000, ignore_eos=True)):
        server.until(lambda: server.metric("texts_waiting") == 3)
        assert server.metric("texts_running") == 1
    server.until(lambda: server.metric("client_disconnects_total") == 1)
    server.complete(max_tokens=2)
    assert server.metric("client_disconnects_total") == 1


def test_who_is_not_let_in_is_counted(serve, counting):
    server = serve(engine=counting(), keys=["right"])
    key = {"X-Api-Key": "right"}
    server.until(lambda: server.ask("GET", "/readyz")[0] == 200)
    for headers in ({}, {"X-Api-Key": "wrong"}, {"Host": "evil.example"}, key):
        server.ask("POST", "/v1/completions", {"prompt": 5}, headers)  # is 400 with the key
    lines = server.ask("GET", "/metrics", headers=key)[2].splitlines()
    assert {line for line in lines if line.startswith("gpt2kit_requests_rejected_total")} == {
        'gpt2kit_requests_rejected_total{status="401"} 2.0',
        'gpt2kit_requests_rejected_total{status="403"} 1.0',
    }


def test_no_label_tells_one_request_from_another(server):
    for number in range(3):
        server.complete(prompt=f"secret {number}", user=f"somebody {number}", **FIVE_TOKENS)
    labels = {label for name in figures(server) for label in re.findall(r'(\w+)="', name)}
    assert labels == {"le", "reason"}
    assert len(figures(server)) < 100
