"""/openapi.json says what is taken and answered, so that programs and the page /docs can go by it."""

import json

import jsonschema
import pytest

METHODS = {"get", "post"}
BODIES = ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/generate"]
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def document(api):
    return api.get("/openapi.json").json()


@pytest.fixture(scope="module")
def operations(document):
    return {(method, path): told for path, item in document["paths"].items() for method, told in item.items()}


def schema_at(document, schema):
    """A schema that stands alone."""
    return {**schema, "components": document["components"]}


def test_every_route_of_the_api_is_there(operations):
    assert {path for method, path in operations if method == "post"} == set(BODIES)
    assert {path for method, path in operations if method == "get"} >= {
        *("/health", "/livez", "/readyz", "/metrics", "/version", "/info", "/tokenizer_info"),
        *("/v1/models", "/v1/models/{name}", "/api/runs", "/api/runs/{name}"),
    }


def test_every_route_tells_its_errors_in_one_shape_and_no_other(operations):
    for place, told in operations.items():
        assert {"200", "4XX", "5XX"} <= told["responses"].keys(), place
        assert "422" not in told["responses"], place
        for status in ("4XX", "5XX"):
            schema = told["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}


def test_every_route_and_every_field_says_what_it_is_for(document, operations):
    assert all(told["summary"] and told["description"] for told in operations.values())
    bare = [
        f"{name}.{field}"
        for name in ("CompletionRequest", "ChatRequest")
        for field, told in document["components"]["schemas"][name]["properties"].items()
        if not told.get("description")
    ]
    assert bare == []


def test_answers_that_are_no_json_say_so(operations):
    assert set(operations["post", "/v1/completions"]["responses"]["200"]["content"]) == {
        "application/json",
        "text/event-stream",
    }
    (content_type,) = operations["get", "/metrics"]["responses"]["200"]["content"]
    assert content_type.startswith("text/plain")


ANSWERED = [
    ("post", "/v1/completions", {"prompt": "A", "n": 2, "logprobs": 2, "echo": True, "prompt_logprobs": 1}),
    ("post", "/v1/completions", {"prompt": "A", "logprobs": 0, "return_token_ids": True, "return_entropy": True}),
    ("post", "/v1/chat/completions", {"messages": HI, "max_tokens": 4, "logprobs": True, "top_logprobs": 2}),
    ("post", "/tokenize", {"prompt": "A"}),
    ("post", "/tokenize", {"prompt": "é", "return_token_strs": True, "return_offsets": True}),
    ("post", "/detokenize", {"tokens": [1]}),
    ("post", "/generate", {"text": "A", "max_length": 4}),
    *[("get", path, None) for path in ("/health", "/livez", "/readyz", "/version", "/info", "/tokenizer_info")],
    *[("get", path, None) for path in ("/v1/models", "/v1/models/hf-safetensors", "/api/runs")],
]


@pytest.mark.parametrize(
    ("method", "path", "body"), ANSWERED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_answer_is_as_documented(api, document, operations, method, path, body):
    response = api.request(method, path, json=body)
    told = operations[method, path if (method, path) in operations else "/v1/models/{name}"]
    schema = told["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema
    jsonschema.validate(response.json(), schema_at(document, schema))


def test_an_error_is_as_documented(api, document):
    schema = schema_at(document, {"$ref": "#/components/schemas/ErrorAnswer"})
    for body in ({"prompt": 5}, {"prompt": "A" * 99}, {"model": "other"}):
        jsonschema.validate(api.post("/v1/completions", json=body).json(), schema)
    jsonschema.validate(api.get("/nowhere").json(), schema)


TAKEN = [
    *[{"prompt": prompt} for prompt in ("A", [1, 2], ["A", [1]], None, "")],
    *[{"stop": stop} for stop in ("A", ["A"], [], None)],
    *[{"temperature": 1}, {"n": 2.0}, {"logit_bias": {"5": 1}}, {"stream_options": {"include_usage": True}}],
    {"suffix": "", "seed": -1},
]
REFUSED = [
    *[{"prompt": prompt} for prompt in (5, True, {}, [], [[]], [1.5], [1, "A"], ["A", 1], [-1], [None])],
    *[{"stop": stop} for stop in ("", [""], 5, [5], ["A"] * 17)],
    *[
        {name: value}
        for name in ("max_tokens", "n", "temperature", "logprobs", "seed")
        for value in ("1", True, [], {})
    ],
    *[{"stream": 1}, {"stream": "true"}, {"echo": "no"}, {"unknown": None}, {"stream_options": {"unknown": 1}}],
    *[{"logit_bias": {"A": 1}}, {"logit_bias": {"1": 101}}, {"top_p": 2}, {"n": 0}, {"logprobs": 21}, {"suffix": "A"}],
    *[[], None, "A", 5],
]


@pytest.mark.parametrize(
    ("body", "status"), [*((body, 200) for body in TAKEN), *((body, 400) for body in REFUSED)], ids=json.dumps
)
def test_the_schema_of_a_completion_takes_and_refuses_what_the_server_does(api, document, operations, body, status):
    schema = operations["post", "/v1/completions"]["requestBody"]["content"]["application/json"]["schema"]
    assert jsonschema.Draft202012Validator(schema_at(document, schema)).is_valid(body) == (status == 200)
    response = api.post("/v1/completions", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == status
