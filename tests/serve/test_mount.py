"""The application inside another one, two side by side, and one that is stopped and started again."""

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from gpt2kit.config.serving import ServingConfig
from gpt2kit.serve import create_app

pytestmark = pytest.mark.slow  # real servers, threads and clocks


@pytest.fixture
def app(golden, counting):
    return create_app(golden / "hf-safetensors", engine=counting())


def in_fastapi(app):
    parent = FastAPI()
    parent.mount("/gpt2", app)
    return parent


def in_starlette(app):
    return Starlette(routes=[Mount("/gpt2", app)])


@pytest.mark.parametrize("parent_of", [in_fastapi, in_starlette])
def test_everything_works_below_another_path(serve, app, parent_of):
    server = serve(app=parent_of(app))
    server.until(lambda: server.ask("GET", "/gpt2/readyz")[0] == 200)  # nobody told it that the parent has begun
    for path in ("", "runs", "docs", "page/page.css", "livez", "health", "metrics", "v1/models", "openapi.json"):
        assert server.ask("GET", f"/gpt2/{path}")[0] == 200, path
    status, _, answer = server.ask("POST", "/gpt2/v1/completions", {"prompt": "a", "max_tokens": 2, "temperature": 0})
    assert (status, answer["usage"]["completion_tokens"]) == (200, 2)
    status, _, stream = server.ask("POST", "/gpt2/v1/completions", {"stream": True, "max_tokens": 2})
    assert (status, stream.endswith("data: [DONE]\n\n")) == (200, True)
    assert server.ask("GET", "/gpt2/nowhere")[2]["error"]["type"] == "not_found_error"


def test_the_first_request_of_a_mounted_app_starts_the_worker(app):
    """Whatever it is: it is refused while the model is read, as clients know from any server that starts."""
    client = TestClient(in_fastapi(app), base_url="http://localhost")
    answers = [client.post("/gpt2/v1/completions", json={"prompt": "a"})]
    while answers[-1].status_code == 503:
        assert answers[-1].json()["error"]["code"] == "loading"
        assert answers[-1].headers["retry-after"] == "1"
        answers.append(client.post("/gpt2/v1/completions", json={"prompt": "a"}))
    assert answers[-1].status_code == 200


def test_two_apps_in_one_process_share_nothing(golden, counting):
    parent = FastAPI()
    parent.mount("/one", create_app(golden / "hf-safetensors", engine=counting(), keys=["sesame"]))
    parent.mount("/two", create_app(golden / "hf-v5", engine=counting(), config=ServingConfig(max_tokens=2)))
    client = TestClient(parent, base_url="http://localhost")
    sesame = {"Authorization": "Bearer sesame"}
    for path in ("/one/readyz", "/two/readyz"):
        while client.get(path).status_code == 503:
            pass
    assert client.post("/one/v1/completions", json={"max_tokens": 3}).status_code == 401
    assert client.post("/one/v1/completions", json={"max_tokens": 3}, headers=sesame).status_code == 200
    assert client.post("/two/v1/completions", json={"max_tokens": 3}).status_code == 400
    assert 'gpt2kit_texts_finished_total{reason="length"} 1.0' in client.get("/one/metrics", headers=sesame).text
    assert "gpt2kit_texts_finished_total{" not in client.get("/two/metrics").text


def test_an_app_is_stopped_and_started_again(app):
    for _ in range(2):
        with TestClient(app, base_url="http://localhost") as client:
            while client.get("/readyz").status_code == 503:
                pass
            assert client.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}).status_code == 200
        assert app.state.worker.loaded_models == 0
