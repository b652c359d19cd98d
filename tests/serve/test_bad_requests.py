import contextlib
import json
import logging
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from gpt2kit.config.serving import ServingConfig

PATH = "/v1/completions"
JSON = {"Content-Type": "application/json"}


# --- fields ---


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"prompt": 5}, "prompt", "prompt must be text, a list of token ids, or a list of either, found 5"),
        ({"prompt": {}}, "prompt", "prompt must be text, a list of token ids, or a list of either, found an object"),
        ({"prompt": [1.5]}, "prompt[0]", "prompt[0] must be a whole number, found 1.5"),
        ({"prompt": [1, "a"]}, "prompt[1]", 'prompt[1] must be a whole number, found "a"'),
        ({"prompt": [True]}, "prompt[0]", "prompt[0] must be a whole number, found true"),
        ({"prompt": [-1]}, "prompt[0]", "prompt[0] must be 0 or more, found -1"),
        ({"prompt": ["a", None]}, "prompt[1]", "prompt[1] must be text or a list of token ids, found null"),
        ({"prompt": [[1], [2, "a"]]}, "prompt[1][1]", 'prompt[1][1] must be a whole number, found "a"'),
        ({"prompt": []}, "prompt", "prompt must not be empty"),
        ({"prompt": [[]]}, "prompt[0]", "prompt[0] must not be empty"),
        ({"prompt": [320]}, "prompt", "prompt: there is no token id 320; the ids of hf-safetensors are 0 to 319"),
        ({"prompt": ["a"] * 129}, "prompt", "129 prompts were asked for; this server allows 128"),
        ({"prompt": "\ud800"}, "prompt", "prompt must be text; half of a surrogate pair is none"),
        ({"bad_words": ["\udfff"]}, "bad_words[0]", "bad_words[0] must be text; half of a surrogate pair is none"),
        ({"stop": 5}, "stop", "stop must be text or a list of texts, found 5"),
        ({"stop": ["a", 5]}, "stop[1]", "stop[1] must be text, found 5"),
        ({"stop": ""}, "stop", "stop must not be empty"),
        ({"stop": ["a"] * 17}, "stop", "stop may hold 16 at most"),
        ({"max_tokens": "5"}, "max_tokens", 'max_tokens must be a whole number, found "5"'),
        ({"max_tokens": 1.5}, "max_tokens", "max_tokens must be a whole number, found 1.5"),
        ({"max_tokens": -1}, "max_tokens", "max_tokens must be 0 or more, found -1"),
        ({"max_tokens": 10**6}, "max_tokens", "1,000,000 new tokens were asked for; this server allows 16,384"),
        ({"max_tokens": 10**30}, "max_tokens", f"max_tokens must be below {2**31:,}, found {10**30}"),
        ({"temperature": float("nan")}, "temperature", "temperature must be a finite number, found NaN"),
        ({"temperature": float("inf")}, "temperature", "temperature must be a finite number, found Infinity"),
        ({"temperature": -1}, "temperature", "temperature must be 0 or more, found -1"),
        ({"temperature": "hot"}, "temperature", 'temperature must be a number, found "hot"'),
        ({"top_p": 0}, "top_p", "top_p must be in (0, 1], got 0.0; 1 switches it off"),
        ({"top_p": 1.5}, "top_p", "top_p must be 1 at most, found 1.5"),
        ({"n": True}, "n", "n must be a whole number, found true"),
        ({"n": 0}, "n", "n must be 1 or more, found 0"),
        ({"stream": "yes"}, "stream", 'stream must be true or false, found "yes"'),
        ({"stream_options": 5}, "stream_options", "stream_options must be an object, found 5"),
        ({"logprobs": 21}, "logprobs", "logprobs must be 20 at most, found 21"),
        ({"logit_bias": [1]}, "logit_bias", "logit_bias must be an object, found a list"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "logit_bias.1 must be 100 at most, found 101"),
        ({"seed": 2**64}, "seed", f"seed must be below {2**64:,}, found {2**64}"),
        ({"suffix": "end"}, "suffix", "suffix must be empty: GPT-2 writes forwards only"),
        ({"overflow": "wrap"}, "overflow", "overflow must be 'slide', 'stop' or 'error', found \"wrap\""),
        ({"user": "x" * 99, "n": "y" * 99}, "n", f'n must be a whole number, found "{"y" * 59}...'),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected_and_found(refuse, body, param, message):
    assert refuse(**body) == (
        400,
        {"message": message, "type": "invalid_request_error", "param": param, "code": None},
    )


def test_a_key_that_is_no_token_is_named(refuse):
    status, error = refuse(logit_bias={"the": 1})
    assert (status, error["param"]) == (400, "logit_bias.the")
    assert error["message"] == 'a key of logit_bias must be the number of a token, such as "464", found "the"'


@pytest.mark.parametrize("field", ["logit_bias", "banned_ids", "forced_ids", "stop_token_ids"])
def test_an_id_beyond_the_vocabulary_is_refused_by_field(refuse, field):
    status, error = refuse(**{field: {"320": 1} if field == "logit_bias" else [1, 320]})
    assert (status, error["param"]) == (400, field)
    assert "no token id 320" in error["message"]


@pytest.mark.parametrize(
    ("path", "field", "hint"),
    [
        (PATH, "temprature", "; did you mean 'temperature'?"),
        (PATH, "max_new_tokens", "; did you mean 'max_tokens'?"),
        (PATH, "messages", "; /v1/chat/completions takes it"),
        ("/v1/chat/completions", "prompt", "; /v1/completions takes it"),
        ("/tokenize", "promt", "; did you mean 'prompt'?"),
        (PATH, "x" * 500_000, ""),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_one(refuse, path, field, hint):
    required = {"/v1/chat/completions": {"messages": [{"role": "user", "content": "A"}]}, "/tokenize": {"prompt": "A"}}
    status, error = refuse(path, **required.get(path, {}), **{field: 1})
    assert (status, error["param"]) == (400, field)
    assert error["message"].startswith(
        "there is no field 'x" if field[0] == "x" else f"there is no field {field!r} here"
    )
    assert error["message"].endswith(hint)
    assert len(error["message"]) < 400


# --- bodies ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"A"',
        b"7",
        b"\xff\xfe",
        b'{"prompt": "\xff"}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"prompt": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"seed": 1' + b"0" * 10_000 + b"}",
        b'{"temperature": 1e999}',
        b'{"prompt": "\\ud800"}',
        b"prompt=A",
    ],
    ids=lambda body: body[:24],
)
def test_a_body_that_is_no_such_json_is_refused(api, body):
    response = api.post(PATH, content=body, headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert len(error["message"]) < 300
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"metadata": dict.fromkeys(map(str, range(60_000)), 1)}, "metadata may hold 1000 at most"),
        ({"logit_bias": dict.fromkeys(map(str, range(60_000)), "A")}, "logit_bias may hold 1000 at most"),
        (dict.fromkeys(map(str, range(60_000)), 1), "the body may hold 1000 at most"),
        ({"prompt": [[1.5]] * 60_000}, "prompt[0][0] must be a whole number, found 1.5"),
        ({"banned_ids": ["A"] * 60_000}, 'banned_ids[0] must be a whole number, found "A"'),
    ],
    ids=["metadata", "biases", "fields", "prompts", "ids"],
)
def test_of_many_mistakes_one_is_told_and_the_others_not_looked_for(api, body, message):
    text = json.dumps(body)
    begun = time.process_time()
    error = api.post(PATH, content=text, headers=JSON).json()["error"]
    assert error["message"] == message
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "image/png; x", None])
def test_another_content_type_is_415(api, content_type):
    response = api.post(PATH, content=b"{}", headers={"Content-Type": content_type} if content_type else {})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (415, "unsupported_media_type")
    assert "application/json" in error["message"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"])
def test_json_by_any_name_is_read(api, content_type):
    response = api.post(PATH, content=b'{"max_tokens": 1}', headers={"Content-Type": content_type})
    assert response.status_code == 200


def test_a_body_beyond_the_limit_is_413(api):
    response = api.post(PATH, content=b'{"prompt": "' + b"A" * 1_000_000 + b'"}', headers=JSON)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


# --- places ---


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1", "/v1/completions/", "/v1/models/other", "/page/", "/%00", "/a/../b"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_there_is_404(api, method, path):
    if (method, path) == ("POST", "/v1/models/other"):
        return
    response = api.request(method, path)
    assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", PATH, "POST"),
        ("PUT", PATH, "POST"),
        ("OPTIONS", PATH, "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD, POST"),
        ("STRANGE", "/v1/models/a/b", "GET"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
def test_another_method_is_405_and_all_that_are_allowed_are_named(api, method, path, allowed):
    response = api.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert allowed in response.json()["error"]["message"]


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/", 200), ("/nowhere", 404), (PATH, 405)])
def test_head_tells_the_status_alone(api, path, status):
    response = api.head(path)
    assert (response.status_code, response.content) == (status, b"")


# --- a server's own limits ---


def test_what_is_written_by_default_keeps_to_the_limits_of_the_server(golden, client_of):
    config = ServingConfig(max_tokens=3, chat_template="plain")
    with client_of(golden / "hf-safetensors", config=config) as client:
        for path, body in [
            (PATH, {"prompt": "A", "ignore_eos": True}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "A"}], "ignore_eos": True}),
        ]:
            assert client.post(path, json=body).json()["usage"]["completion_tokens"] == 3
        assert client.post("/generate", json={"text": "A"}).status_code == 200
        assert client.post(PATH, json={"max_tokens": 4}).json()["error"]["param"] == "max_tokens"


def test_a_full_queue_is_told_before_a_prompt_is_read(serve, counting):
    """Else whoever sends long prompts to a busy server keeps it busier still."""
    gate = threading.Event()
    server = serve(config=ServingConfig(slots=1, queue=0), engine=counting(gate=gate)).until_ready()
    with contextlib.closing(server.begin()) as writing:
        server.until(lambda: server.app.state.worker.jobs == 1)
        busy = server.complete(prompt="A" * 10_000)
        gate.set()
        assert writing.getresponse().status == 200
    assert (busy[0], busy[2]["error"]["code"]) == (429, "queue_full")
    assert server.complete(prompt="A" * 10_000)[2]["error"]["code"] == "context_length_exceeded"


# --- faults of ours ---


def test_a_fault_is_500_in_the_same_shape_and_its_reason_stays_in_the_log(golden, client_of, caplog):
    with client_of(golden / "hf-safetensors") as client:

        def fails():
            raise ZeroDivisionError("a secret")

        client.app.add_api_route("/fails", fails)
        with caplog.at_level(logging.ERROR):
            response = client.get("/fails")
        assert client.post(PATH, json={"max_tokens": 1}).status_code == 200
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (500, "server_error", "internal_error")
    assert "secret" not in response.text
    assert "ZeroDivisionError: a secret" in caplog.text
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in response.headers
    assert response.headers["x-request-id"]


# --- vocabularies with padding ---


@pytest.fixture(scope="module")
def padded(tiny_checkpoint, client_of):
    """A server of a model with ids that no text has, as those of nanoGPT; to it they are as likely as the first."""
    wte = tiny_checkpoint.tensors["wte.weight"]
    wte_VD = np.concatenate([wte.read(), wte.read()[:64]])
    tensors = {**tiny_checkpoint.tensors, "wte.weight": replace(wte, shape=wte_VD.shape, load=lambda: wte_VD)}
    config = replace(tiny_checkpoint.config, vocab_size=len(wte_VD))
    with client_of(replace(tiny_checkpoint, config=config, tensors=tensors)) as client:
        yield client


@pytest.mark.parametrize("field", ["prompt", "forced_ids"])
def test_ids_without_text_are_refused_and_harm_nobody(padded, field):
    response = padded.post(PATH, json={field: [350], "echo": True, "logprobs": 2})
    assert (response.status_code, response.json()["error"]["param"]) == (400, field)
    assert padded.post(PATH, json={"prompt": "A"}).status_code == 200


def test_ids_without_text_are_never_chosen_but_told_where_they_are_likely(padded):
    answer = padded.post(PATH, json={"prompt": "A", "max_tokens": 40, "logprobs": 20, "return_token_ids": True})
    (choice,) = json.loads(answer.content)["choices"]
    assert max(choice["token_ids"]) < 320
    assert any(name.startswith("token_id:") for top in choice["logprobs"]["top_logprobs"] for name in top)
