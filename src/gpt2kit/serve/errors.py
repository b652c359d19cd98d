"""Errors as OpenAI's clients know them: {"error": {"message", "type", "param", "code"}}, whatever went wrong.

Here is the one table from our errors to HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from gpt2kit.errors import ConfigError, Gpt2kitError, OutOfMemory, QueueFull, RequestError

SOON = {"Retry-After": "1"}  # in seconds
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
STATUS: dict[type[Gpt2kitError], int] = {  # the first that fits counts
    QueueFull: 429,
    RequestError: 400,
    ConfigError: 400,
    OutOfMemory: 503,
    Gpt2kitError: 500,
}
CODES: dict[type[Gpt2kitError], str] = {
    QueueFull: "queue_full",
    OutOfMemory: "out_of_memory",
}


class HttpError(RequestError):
    """A refusal that knows its status, and which field of the request it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers, self.extra = dict(headers or {}), dict(extra or {})


class Unavailable(HttpError):
    """The server cannot take this request now: it starts, stops, or its engine has failed."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(503, message, code=code, headers=SOON)


def as_http_error(error: Gpt2kitError) -> HttpError:
    """What the caller is told about one of our errors."""
    if isinstance(error, HttpError):
        return error
    kind = next(kind for kind in STATUS if isinstance(error, kind))
    status = STATUS[kind]
    return HttpError(status, str(error), code=CODES.get(kind), headers=SOON if status in (429, 503) else None)


def error_body(error: HttpError) -> dict[str, object]:
    """The JSON of an error."""
    kind = TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code, **error.extra}}


def error_response(error: HttpError) -> JSONResponse:
    """What the caller sees of an error."""
    headers = {"x-should-retry": "true" if error.status in (429, 503) else "false", **error.headers}
    return JSONResponse(error_body(error), error.status, headers)
