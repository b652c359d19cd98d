"""What is wrong with the body of a request, in words for its writer; pydantic and the framework speak to others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from gpt2kit.serve.errors import HttpError, error_response

PROBLEMS = {  # by pydantic's name for the error; the braces are its figures
    "missing": "is missing",
    "string_type": "must be text",
    "string_unicode": "must be text; half of a surrogate pair is none",
    "string_too_short": "must not be empty",
    "string_too_long": "may have {max_length:,} characters at most",
    "string_pattern_mismatch": 'must be the number of a token, such as "464"',
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be {ge:,} or more",
    "greater_than": "must be above {gt:,}",
    "less_than_equal": "must be {le:,} at most",
    "less_than": "must be below {lt:,}",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "too_short": "must not be empty",
    "too_long": "may hold {max_length:,} at most",
    "literal_error": "must be {expected}",
}
LENGTHS = ("string_too_short", "string_too_long", "too_short", "too_long", "too_many")
WITHOUT_VALUE = ("missing", "string_unicode", *LENGTHS)
REASONS = {
    "suffix": "must be empty: GPT-2 writes forwards only",
    "tools": "must be empty: a base model calls no tools",
    "functions": "must be empty: a base model calls no functions",
    "response_format": 'can only be {"type": "text"}: the model writes as it likes',
}
ELSEWHERE = {"messages": "/v1/chat/completions", "prompt": "/v1/completions", "text": "/generate"}


async def refuse_body(request: Request, error: Exception) -> Response:
    """The answer to a body that does not fit its schema."""
    assert isinstance(error, RequestValidationError), "registered for this class"
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        found = f"{kind!r:.100}" if kind else "none"
        problem = f"the content type of the body must be application/json, found {found}"
        return error_response(HttpError(415, problem, code="unsupported_media_type"))
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(HttpError(400, f"the body is not valid JSON: {first.get('ctx', {}).get('error', '')}"))
    param = _path(first["loc"][1:])
    return error_response(HttpError(400, _message(first, param, request), param=param or None))


def _message(error: Mapping[str, Any], path: str, request: Request) -> str:
    place = path or "the body"
    if error["type"] == "extra_forbidden":
        return f"there is no field {path!r:.200} here{_hint(str(error['loc'][-1]), request)}"
    if reason := REASONS.get(path.partition(".")[0]):
        return f"{path.partition('.')[0]} {reason}"
    if error["loc"][-1] == "[key]":
        place = f"a key of {path.rpartition('.')[0]}"
    problem = PROBLEMS.get(error["type"], error["msg"]).format(**_figures(error))
    found = "" if error["type"] in WITHOUT_VALUE else f", found {_shown(error['input'])}"
    return f"{place:.200} {problem}{found}"


def _figures(error: Mapping[str, Any]) -> dict[str, object]:
    """What the braces stand for; 1.0 is written 1."""
    figures = error.get("ctx", {}).items()
    return {name: int(n) if isinstance(n, float) and n.is_integer() else n for name, n in figures}


def _path(parts: Sequence[str | int]) -> str:
    """Such as messages[0].content; without pydantic's names for members of unions."""
    told = ""
    for part in parts:
        if isinstance(part, int):
            told += f"[{part}]"
        elif part not in ("<text>", "<ids>", "<one>", "<several>", "[key]"):
            told += f".{part}" if told else part
    return told


def _hint(name: str, request: Request) -> str:
    if place := ELSEWHERE.get(name):
        return f"; {place} takes it"
    near = get_close_matches(name[:100], _known_fields(request), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _known_fields(request: Request) -> Iterable[str]:
    """Those of the body that this route takes."""
    return getattr(request.scope["route"].body_field.field_info.annotation, "model_fields", ())


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    told = json.dumps(value)
    return told if len(told) <= 60 else f"{told[:60]}..."
