import pytest

import gpt2kit
from gpt2kit.generate.select import preferred_engine

NAME = "hf-safetensors"


@pytest.mark.parametrize("path", ["/health", "/readyz", "/livez"])
def test_a_server_that_is_ready_is_well(api, path):
    response = api.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert (api.head(path).status_code, api.head(path).content) == (200, b"")


def test_a_model_is_listed_with_its_window_and_size(api):
    (model,) = api.get("/v1/models").json()["data"]
    assert model == api.get(f"/v1/models/{NAME}").json()
    created = model.pop("created")
    assert created > 1_700_000_000
    # Two layers: see config.json; transformers counts the same.
    assert model == {
        **{"id": NAME, "object": "model", "owned_by": "gpt2kit"},
        **{"max_model_len": 56, "parameters": 74_280, "loaded": True},
    }
    assert api.get("/v1/models").json()["object"] == "list"


def test_a_model_that_is_not_served_is_404_with_those_that_are(api, refuse):
    error = api.get("/v1/models/other").json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert error["message"] == f"no model 'other' is served here; there is {NAME}"
    assert refuse(model="other") == (404, error)


@pytest.mark.parametrize("model", [None, NAME, ""])
def test_a_model_may_be_named_or_not(complete, model):
    assert complete(model=model, max_tokens=1)["model"] == NAME


def test_a_server_tells_its_version_and_limits(api):
    info = api.get("/info").json()
    assert api.get("/version").json() == {"version": gpt2kit.__version__}
    assert (info["version"], info["default_model"], info["chat_template"]) == (gpt2kit.__version__, NAME, "plain")
    assert (info["engine"], info["device"]) == ("reference", "cpu")
    assert info["limits"] == {
        **{"max_body": 1_000_000, "max_prompts": 128, "max_n": 16, "max_tokens": 16_384},
        **{"deadline": 600.0, "slots": 8, "queue": 64},
    }


def test_what_auto_means_is_told_once_a_model_is_read(serve, golden):
    server = serve(golden / "hf-safetensors").until_ready()
    info = server.ask("GET", "/info")[2]
    engine = preferred_engine()
    assert (info["engine"], info["device"]) == (engine, "cpu" if engine == "native" else "cuda")


def test_several_models_are_named_to_whoever_asks_for_another(serve, golden, counting):
    server = serve(golden / "hf-safetensors", golden / "hf-v5", engine=counting()).until_ready()
    error = server.complete(model="other")[2]["error"]
    assert error["message"] == "no model 'other' is served here; there are hf-safetensors, hf-v5"


def test_the_defaults_in_openapi_json_change_nothing_where_they_are_sent(api, complete):
    fields = api.get("/openapi.json").json()["components"]["schemas"]["CompletionRequest"]["properties"]
    assert list(fields)[:2] == ["model", "prompt"]
    defaults = {name: told["default"] for name, told in fields.items() if "default" in told}
    assert (defaults["temperature"], defaults["max_tokens"], defaults["overflow"]) == (1, 16, "slide")
    plain, spelt_out = complete(seed=5), complete(seed=5, **defaults)
    assert (plain["choices"], plain["usage"]) == (spelt_out["choices"], spelt_out["usage"])
