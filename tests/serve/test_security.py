"""The gate, asked by hand-made ASGI calls: no client in between that would tidy a path or a header."""

import asyncio
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import ConfigError
from gpt2kit.serve.keys import Keys
from gpt2kit.serve.security import Gate, require_safe_address

KEY = "sk-right"
PAGE = "https://example.org"
PUBLIC = ["/", "/runs", "/docs", "/favicon.ico", "/health", "/livez", "/readyz", "/page/page.css", "/page/main.test.js"]
PRIVATE = ["/v1/completions", "/v1/models", "/metrics", "/openapi.json", "/info", "/api/runs", "/generate", "/nowhere"]
NAMES = ["localhost", "localhost:5000", "LOCALHOST", "localhost.", "127.0.0.1:5000", "192.168.1.7", "[::1]:5000"]
NAMES += ["[fe80::1]", "gpt2.lan", "GPT2.lan:8000", "allowed.example:1"]
LOOKALIKES = ["//", "/runs/", "/runs/x", "/Docs", "/docs/../v1/models", "/page", "/page/", "/page/.."]
LOOKALIKES += ["/page/../v1/models", "/page/..%2fv1/models", "/page/%2e%2e/v1/models", "/page/a/../../v1/models"]
LOOKALIKES += ["/page//v1/models", "/page/.hidden", "//v1/models", "/V1/models", "/health;x", "/page/\\..\\x.js"]
LOOKALIKES += ["/./", "", "/health\n", "/health\x00", "/page/page.css\n"]
SECURITY = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class Answer:
    def __init__(self, messages):
        assert [m["type"] for m in messages[:1]] == ["http.response.start"]
        assert {m["type"] for m in messages[1:]} == {"http.response.body"}, "one answer, not two"
        self.status = messages[0]["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in messages[0]["headers"]}
        assert len(self.headers) == len(messages[0]["headers"]), "no header twice"
        self.pieces = [m["body"] for m in messages[1:] if m["body"]]
        self.body = b"".join(self.pieces)

    @property
    def error(self):
        return json.loads(self.body)["error"]


def ask(app, method="GET", path="/", body=(), host="localhost:5000", root_path="", **headers):
    """One request; header names are written with _ for -. `host` may be a list, for several or none."""
    hosts = [host] if isinstance(host, str) else host
    fields = [(b"host", h.encode()) for h in hosts]
    fields += [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "root_path": root_path, "headers": fields}
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "asgi": {"version": "3.0"}}
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in body]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    sent = []

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return Answer(sent)


async def echo(scope, receive, send):
    """Lets everybody in and says so; the body is read first."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"vary", b"Accept")]})
    await send({"type": "http.response.body", "body": b"in"})


def gate(keys=(), app=echo, count=lambda status: None, **settings):
    return Gate(app, ServingConfig(**settings), Keys(keys), count)


# --- Host ---


@pytest.mark.parametrize("host", [*NAMES, socket.gethostname(), f"{socket.gethostname()}.local:80"])
def test_the_names_of_this_machine_are_answered(host):
    assert ask(gate(host="gpt2.lan", allow_host=("Allowed.example",)), host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
@pytest.mark.parametrize("path", ["/", "/health", "/v1/models"])
def test_another_name_is_refused_on_every_path(host, path):
    answer = ask(gate(), path=path, host=host)
    assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")
    assert "--allow-host" in answer.error["message"]


def test_every_name_can_be_allowed():
    assert ask(gate(allow_host=("*",)), host="anything.example:81").status == 200


@pytest.mark.parametrize(
    "host", [[], [""], ["localhost", "localhost"], ["a b"], ["user@localhost"], ["[::1"], ["a:b"], ["[]"]]
)
def test_a_host_that_is_missing_double_or_garbled_is_400(host):
    answer = ask(gate(allow_host=("*",)), host=host)
    assert (answer.status, answer.error["code"]) == (400, "invalid_host")


# --- Origin ---


def preflight(app, origin=PAGE, **headers):
    return ask(app, "OPTIONS", "/v1/completions", origin=origin, access_control_request_method="POST", **headers)


def test_an_allowed_page_is_told_before_it_asks_that_it_may_send_any_header_without_a_key():
    asked = "authorization,content-type,x-stainless-lang"
    answer = preflight(gate([KEY], allow_origin=(PAGE,)), access_control_request_headers=asked)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-headers"] == asked
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "Origin" in answer.headers["vary"]


def test_an_allowed_page_can_read_answers_and_errors_of_the_gate():
    app = gate([KEY], allow_origin=(PAGE,))
    for headers, status in [({"x_api_key": KEY}, 200), ({}, 401), ({"host": "evil.example"}, 403)]:
        answer = ask(app, "POST", "/v1/completions", origin=PAGE, **headers)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, PAGE)
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://example.org", f"{PAGE}:81", f"{PAGE}.evil.example", "null"]
)
def test_other_pages_neither_write_nor_read(origin):
    app = gate(allow_origin=(PAGE,))
    writing, reading, asking = ask(app, "POST", origin=origin), ask(app, origin=origin), preflight(app, origin)
    assert (writing.status, writing.error["code"]) == (403, "origin_not_allowed")
    assert "--allow-origin" in writing.error["message"]
    for answer in (writing, reading, asking):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["vary"].endswith("Origin")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_without_an_allowed_page_only_our_own_pages_write(method):
    assert ask(gate(), method, origin=PAGE).status == 403
    assert ask(gate(), method, origin="http://localhost:5000").status == 200
    assert ask(gate(), method, origin="http://localhost:8080").status == 403
    assert ask(gate(), method, origin="https://gpt2.example", host="gpt2.example").status == 403
    assert (
        ask(gate(allow_host=("gpt2.example",)), method, origin="https://gpt2.example", host="GPT2.example").status
        == 200
    )
    assert ask(gate(), method).status == 200, "programs send no Origin"


@pytest.mark.parametrize("origin", [PAGE, "null"])
def test_every_page_can_be_allowed(origin):
    answer = ask(gate(allow_origin=("*",)), "POST", origin=origin)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert preflight(gate(allow_origin=("*",)), origin).headers["access-control-allow-origin"] == "*"


# --- keys ---


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY} "}, {"x_api_key": KEY}]
)
@pytest.mark.parametrize("path", PRIVATE)
def test_a_key_opens_everything(path, headers):
    assert ask(gate(["other", KEY]), "POST", path, **headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        *({}, {"authorization": "Bearer sk-wrong"}, {"authorization": "Bearer "}, {"authorization": KEY}),
        *(
            {"authorization": f"Basic {KEY}"},
            {"x_api_key": "sk-wrong"},
            {"x_api_key": ""},
            {"authorization": "Bearer \xff"},
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
def test_without_the_right_key_nothing_is_answered(method, headers):
    for path in PRIVATE:
        answer = ask(gate([KEY]), method, path, **headers)
        assert (answer.status, answer.error["code"], answer.headers["www-authenticate"]) == (
            401,
            "invalid_api_key",
            "Bearer",
        )
        assert "sk-" not in answer.error["message"]


@pytest.mark.parametrize("path", PUBLIC)
def test_public_pages_are_read_without_a_key_and_only_read(path):
    app = gate([KEY])
    assert (ask(app, "GET", path).status, ask(app, "HEAD", path).status) == (200, 200)
    assert {ask(app, method, path).status for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "get")} == {401}
    assert ask(app, "POST", path).status == (200 if path == "/" else 401), "the form brings its key in a field"


@pytest.mark.parametrize("path", LOOKALIKES)
def test_a_path_that_only_looks_public_is_not(path):
    assert ask(gate([KEY]), "GET", path).status == 401


@pytest.mark.slow
@given(
    st.one_of(
        st.text(), st.lists(st.sampled_from([*"/.%~\\;\n", "page", "runs", "docs", "v1", "2e", "2f", "a"])).map("".join)
    )
)
def test_no_other_path_is_public(path):
    listed = path in PUBLIC or (path.startswith("/page/") and path.count("/") == 2 and "." in path[7:])
    if not listed:
        assert ask(gate([KEY]), "GET", path).status == 401


def test_every_route_of_an_app_is_behind_the_gate():
    async def here(_request):
        return PlainTextResponse("in")

    routes = [Route(path, here, methods=["GET", "POST", "PUT"]) for path in PUBLIC + PRIVATE]
    app = gate([KEY], app=Starlette(routes=routes))
    let_in = {(method, r.path) for r in routes for method in r.methods if ask(app, method, r.path).status == 200}
    assert let_in == {*((method, path) for path in PUBLIC for method in ("GET", "HEAD")), ("POST", "/")}


def test_a_mounted_app_sees_its_own_paths():
    parent = Starlette(routes=[Mount("/gpt2", gate([KEY]))])
    assert ask(parent, "GET", "/gpt2/health").status == 200
    assert ask(parent, "GET", "/gpt2/v1/models").status == 401
    assert ask(parent, "GET", "/gpt2/health/gpt2/health").status == 401
    assert ask(gate([KEY]), "GET", "/healthy/health", root_path="/health").status == 401


# --- length ---


def test_a_body_within_the_limit_is_read():
    assert ask(gate(max_body=10), "POST", body=[b"12345", b"67890"], content_length="10").status == 200
    assert ask(gate(max_body=10), "POST", body=[b"12345", b"67890"]).status == 200


@pytest.mark.parametrize("length", ["11", "9" * 18, "9" * 5000])
def test_a_body_announced_too_long_is_not_read(length):
    async def unreachable(scope, receive, send):
        raise AssertionError("the app was asked")

    answer = ask(gate(app=unreachable, max_body=10), "POST", content_length=length)
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    assert "--max-body" in answer.error["message"]


@pytest.mark.parametrize(
    "headers", [{"transfer_encoding": "chunked"}, {"content_length": "5"}, {"content_length": "²"}]
)
def test_a_body_that_grows_too_long_is_cut_off(headers):
    answer = ask(gate(max_body=10), "POST", body=[b"12345", b"67890", b"1"], **headers)
    assert (answer.status, answer.error["code"], answer.headers["connection"]) == (413, "body_too_large", "close")


def test_an_app_of_starlette_is_cut_off_too():
    async def length(request):
        return PlainTextResponse(str(len(await request.body())))

    app = gate(app=Starlette(routes=[Route("/", length, methods=["POST"])]), max_body=10)
    assert ask(app, "POST", body=[b"12345", b"67890"]).body == b"10"
    assert ask(app, "POST", body=[b"12345", b"67890", b"1"]).status == 413


# --- every answer ---


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        *((200, {}), (403, {"host": "evil.example"}), (400, {"host": []}), (403, {"method": "POST", "origin": PAGE})),
        *((401, {"path": "/v1/models"}), (413, {"content_length": "2000000"})),
    ],
)
def test_every_answer_has_the_headers_of_security_and_a_number(status, asked):
    first, second = ask(gate([KEY]), **asked), ask(gate([KEY]), **asked)
    assert first.status == status
    assert SECURITY.items() <= first.headers.items()
    assert len(first.headers["x-request-id"]) == 32
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


@pytest.mark.parametrize(
    ("given_id", "kept"), [("req-1.a_B", True), ("a" * 65, False), ("", False), ("a b", False), ("<b>", False)]
)
def test_a_plain_number_of_the_caller_is_kept(given_id, kept):
    assert (ask(gate(), x_request_id=given_id).headers["x-request-id"] == given_id) == kept


def test_the_app_knows_the_number_of_an_answer_for_its_log():
    async def tell(scope, receive, send):
        await PlainTextResponse(scope["state"]["request_id"])(scope, receive, send)

    for given_id in ("", "mine"):
        answer = ask(gate(app=tell), x_request_id=given_id)
        assert answer.headers["x-request-id"] == answer.body.decode()


def test_refusals_are_counted_and_nothing_else():
    statuses = []
    app = gate([KEY], count=statuses.append)
    for asked in ({}, {"path": "/info"}, {"path": "/info", "x_api_key": KEY}, {"host": "evil.example"}):
        ask(app, **asked)
    assert statuses == [401, 403]


def test_a_stream_passes_piece_by_piece():
    async def pieces(_request):
        async def write():
            for piece in ["one", "two", "three"]:
                yield piece

        return StreamingResponse(write())

    app = gate([KEY], app=Starlette(routes=[Route("/", pieces)]))
    assert ask(app).pieces == [b"one", b"two", b"three"]


def test_a_fault_of_the_app_is_not_hidden():
    async def faulty(scope, receive, send):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(gate(app=faulty))


def test_web_sockets_are_refused_and_lifespans_pass():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    async def send(message):
        seen.append(message["type"])

    for kind in ("websocket", "lifespan"):
        asyncio.run(gate(app=app)({"type": kind}, None, send))
    assert seen == ["websocket.close", "lifespan"]


# --- where to listen ---


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LocalHost"])
def test_this_machine_alone_needs_no_key(host):
    require_safe_address(ServingConfig(host=host), Keys())


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.7", "gpt2.lan", "localhost.evil.example", "127.0.0.1.nip.io"]
)
def test_other_machines_need_a_key_or_two_words(host):
    with pytest.raises(
        ConfigError,
        match=r"no key: give it one with --api-key-file or --api-key, or let everyone in with --without-key$",
    ):
        require_safe_address(ServingConfig(host=host), Keys())
    require_safe_address(ServingConfig(host=host), Keys((KEY,)))
    require_safe_address(ServingConfig(host=host, without_key=True), Keys())
