"""GET /, /runs, /docs and the files of page/: plain HTML, CSS and JavaScript, as they lie in the package.

Addresses inside the pages are relative, so that the app can be mounted below any prefix.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from gpt2kit.serve.errors import HttpError

PAGE = Path(__file__).parent / "page"
# Not left to the system's table, in which JavaScript may be text/plain.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
def main_page(request: Request) -> Response:
    """The page that writes text."""
    return _file("index.html", request)


@router.api_route("/runs", methods=["GET", "HEAD"])
def runs_page(request: Request) -> Response:
    """The page that shows training runs."""
    return _file("runs.html", request)


@router.api_route("/docs", methods=["GET", "HEAD"])
def docs_page(request: Request) -> Response:
    """The page that draws openapi.json."""
    return _file("docs.html", request)


@router.api_route("/favicon.ico", methods=["GET", "HEAD"])
def icon(request: Request) -> Response:
    """The icon, where browsers look for one."""
    return _file("icon.svg", request)


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
def page_file(name: str, request: Request) -> Response:
    """One file of page/."""
    return _file(name, request)


def _file(name: str, request: Request) -> Response:
    """A file of page/, or 304 where the browser has these very bytes; it asks each time, so an upgrade is seen."""
    files = {path.name: path for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES and path.is_file()}
    if (path := files.get(name)) is None:
        raise HttpError(404, f"there is no file {name!r} among the pages", code="not_found")
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    known = [entry.strip().removeprefix("W/") for entry in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=MEDIA_TYPES[path.suffix])
