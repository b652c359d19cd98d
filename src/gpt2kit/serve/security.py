"""Who may ask this server, and what every answer says: a gate around the app, in plain ASGI.

A request is refused at the first of these that it fails:
    Host      names this machine goes by (another name is a web page that had its own name point here: DNS rebinding)
    Origin    other people's web pages only read what anyone may read, unless --allow-origin names them (CORS)
    key       needed on every path and method that PUBLIC does not name, if the server has keys
    length    of the body
Streams pass piece by piece; nothing is held back.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from uuid import uuid4

from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from gpt2kit.config.limits import require
from gpt2kit.config.serving import ServingConfig
from gpt2kit.serve.errors import HttpError, error_response
from gpt2kit.serve.keys import Keys

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # under no-referrer a browser sends our own form with "Origin: null"
}
READING = ("GET", "HEAD")
PUBLIC = re.compile(r"/|/runs|/docs|/favicon\.ico|/health|/livez|/readyz|/page/[A-Za-z0-9_-]+(\.[A-Za-z0-9]+)+")
"""Paths below the app's own root that anyone may read without a key."""
FORM = ("POST", "/")
"""The one request that may bring its key in the body: its handler must ask Keys.accepts."""
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(:\d*)?")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PREFLIGHT_SECONDS = 600


def require_safe_address(config: ServingConfig, keys: Keys) -> None:
    """Raise ConfigError if other machines could write with this one without a key and nobody said they may."""
    require(
        bool(keys) or config.without_key or _is_loopback(config.host),
        f"on {config.host} other machines reach this server, and it has no key: give it one with --api-key-file "
        "or --api-key, or let everyone in with --without-key",
    )


def key_in(asked: Headers) -> str:
    """The key that these headers bring, "" for none."""
    scheme, _, token = asked.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer or asked.get("x-api-key", "")


class Gate:
    """ASGI middleware: lets a request through to `app`, or answers it with an error itself."""

    def __init__(
        self, app: ASGIApp, config: ServingConfig, keys: Keys, count: Callable[[int], None] = lambda status: None
    ) -> None:
        """`count` hears the status of every refusal."""
        machine = socket.gethostname()
        short = machine.partition(".")[0]
        self.app, self.keys, self.count, self.max_body = app, keys, count, config.max_body
        names = ("localhost", machine, short, f"{short}.local", config.host, *config.allow_host)
        self.hosts = {name.lower() for name in names}
        self.origins = {origin.lower() for origin in config.allow_origin}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose(1008)(scope, receive, send)
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope)
        request_id = asked.get("x-request-id", "")
        request_id = request_id if REQUEST_ID.fullmatch(request_id) else uuid4().hex
        scope = {**scope, "state": {**scope.get("state", {}), "request_id": request_id}}  # for the log
        send = self._with_headers(send, asked, request_id)
        try:
            self._check_host(asked)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in asked and self._shares_with(asked):
                await Response(status_code=204, headers=_preflight_headers(asked))(scope, receive, send)
                return
            self._check_origin(scope["method"], asked)
            self._check_key(scope, asked)
            self._check_length(asked)
        except HttpError as error:
            self.count(error.status)
            await error_response(error)(scope, receive, send)
        else:
            await self._pass_on(scope, receive, send)

    def _check_host(self, asked: Headers) -> None:
        given = asked.getlist("host")
        match = HOST.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise HttpError(400, "a request needs one Host header, such as Host: localhost:5000", code="invalid_host")
        name = match[1].lower().removesuffix(".")
        if not (name in self.hosts or "*" in self.hosts or _is_address(name)):
            raise HttpError(
                403,
                f"this server does not go by the name {name[:255]!r}; if it should, start it with --allow-host NAME",
                code="host_not_allowed",
            )

    def _check_origin(self, method: str, asked: Headers) -> None:
        """Other people's web pages cannot make this machine write."""
        origin = asked.get("origin")
        if origin is None or method in (*READING, "OPTIONS") or self._shares_with(asked):
            return
        if origin.lower().partition("://")[2] != asked["host"].lower():
            raise HttpError(
                403,
                f"web pages of {origin[:255]!r} may not write here; --allow-origin ORIGIN would let them",
                code="origin_not_allowed",
            )

    def _check_key(self, scope: Scope, asked: Headers) -> None:
        # The path as the router will see it: decoded, without the place where a parent mounted the app.
        method, path = scope["method"], get_route_path(scope)
        if not self.keys or (method in READING and PUBLIC.fullmatch(path)) or (method, path) == FORM:
            return
        given = key_in(asked)
        if not self.keys.accepts(given):
            problem = "this key is not one of the server's" if given else "this server needs a key"
            raise HttpError(
                401,
                f"{problem}; send it as Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_length(self, asked: Headers) -> None:
        length = asked.get("content-length", "")
        if length and "transfer-encoding" in asked:  # RFC 9112, 6.1: two proxies may see two requests in it
            problem = "a body has a Content-Length or a Transfer-Encoding, not both"
            raise HttpError(400, problem, code="invalid_body", headers={"Connection": "close"})
        if length.isdecimal() and int(length[:20]) > self.max_body:  # what lies beyond 20 digits is counted as it comes
            raise self._too_large()

    def _too_large(self, **headers: str) -> HttpError:
        message = f"the body of a request may have {self.max_body:,} bytes here; --max-body lets the server take more"
        return HttpError(413, message, code="body_too_large", headers=headers)

    def _shares_with(self, asked: Headers) -> bool:
        """Whether the web page that asks may read the answer."""
        origin = asked.get("origin")
        return origin is not None and ("*" in self.origins or origin.lower() in self.origins)

    def _with_headers(self, send: Send, asked: Headers, request_id: str) -> Send:
        """`send`, which gives every answer the headers that all have."""
        headers = {**SECURITY_HEADERS, "x-request-id": request_id}
        if self._shares_with(asked):
            headers["Access-Control-Allow-Origin"] = "*" if "*" in self.origins else asked["origin"]
            headers["Access-Control-Expose-Headers"] = "Retry-After, x-should-retry, x-request-id"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(raw=list(message.get("headers", [])))
                given.update(headers)
                if self.origins:
                    given.add_vary_header("Origin")
                message = {**message, "headers": given.raw}
            await send(message)

        return send_with_headers

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; to a body that turns out too long the app's reader is gone, and we answer."""
        left, answering = self.max_body, False

        async def receive_counted() -> Message:
            nonlocal left
            if left < 0:
                return {"type": "http.disconnect"}
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        async def send_unless_refused(message: Message) -> None:
            nonlocal answering
            if left >= 0 or answering:
                answering = True
                await send(message)

        try:
            await self.app(scope, receive_counted, send_unless_refused)
        except ClientDisconnect:
            if left >= 0:
                raise
        if left < 0 and not answering:
            await error_response(self._too_large(Connection="close"))(scope, receive, send)


def _preflight_headers(asked: Headers) -> dict[str, str]:
    """What a page of an allowed origin may send: any header, for clients add their own (x-stainless-*)."""
    return {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": asked.get("access-control-request-headers", ""),
        "Access-Control-Allow-Private-Network": "true",  # Chrome asks when a public page calls a machine at home
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        "Vary": "Access-Control-Request-Headers",
    }


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
