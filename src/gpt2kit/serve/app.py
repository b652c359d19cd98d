"""The application: its routes, its middleware, and what becomes of errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2kit import __version__
from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import EngineConfig
from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import ConfigError, Gpt2kitError
from gpt2kit.runs import RUNS
from gpt2kit.serve import about, chat, completions, demos, metrics, pages, runs, tokens
from gpt2kit.serve.answers import ERRORS
from gpt2kit.serve.body_errors import refuse_body
from gpt2kit.serve.errors import HttpError, as_http_error, error_response
from gpt2kit.serve.keys import Keys
from gpt2kit.serve.memory import memory_for_models
from gpt2kit.serve.metrics import Metrics
from gpt2kit.serve.models import Models, OpenEngine
from gpt2kit.serve.schema import Sampling
from gpt2kit.serve.security import Gate
from gpt2kit.serve.worker import Worker

READERS = 2  # threads that encode prompts and write long answers; more would fight over the interpreter with all else

log = logging.getLogger(__name__)

ROUTED = (completions, chat, about, tokens, demos, runs, metrics, pages)


def build_app(
    models: Sequence[str | Path | Checkpoint],
    config: ServingConfig,
    keys: Keys,
    *,
    memory_bytes: int | None = None,
    engine: EngineConfig | OpenEngine,
    runs_directory: Path = RUNS,
) -> FastAPI:
    """See `gpt2kit.serve.create_app`."""
    served = Models(models)
    budget = memory_for_models() if memory_bytes is None else memory_bytes
    worker = Worker(served, config, memory_bytes=budget, engine=engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.stop)

    app = FastAPI(
        title="gpt2kit",
        version=__version__,
        summary="GPT-2 over HTTP: OpenAI's completions, and more.",
        docs_url=None,  # our own page draws openapi.json
        redoc_url=None,
        redirect_slashes=False,
        responses=ERRORS,
        lifespan=lifespan,
    )
    app.state.worker, app.state.models, app.state.config, app.state.keys = worker, served, config, keys
    app.state.readers = CapacityLimiter(READERS)
    app.state.metrics, app.state.runs = Metrics(worker), runs_directory
    for module in ROUTED:
        app.include_router(module.router)
    app.add_middleware(FaultsAsJson)
    app.add_middleware(Gate, config=config, keys=keys, count=app.state.metrics.refused)
    app.add_exception_handler(Gpt2kitError, _refused)
    app.add_exception_handler(RequestValidationError, refuse_body)
    app.add_exception_handler(HTTPException, _by_framework)
    return app


class FaultsAsJson:
    """ASGI middleware: a fault of ours becomes a 500 in OpenAI's shape, and a traceback in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception:
            request_id = scope.get("state", {}).get("request_id")
            log.exception("a fault while answering %s (x-request-id %s)", scope.get("path"), request_id)
            if begun or scope["type"] != "http":
                raise
            error = HttpError(500, "this server has a fault; its log tells more", code="internal_error")
            await error_response(error)(scope, receive, send)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Gpt2kitError), "registered for this class"
    refusal = as_http_error(error)
    if isinstance(error, ConfigError) and (field := str(error).partition(" ")[0]) in Sampling.model_fields:
        refusal.param = field
    if request.method == "POST":  # a health check that is answered no is not refused
        request.app.state.metrics.refused(refusal.status)
    if request.scope.get("endpoint") is demos.form:
        return demos.form_refused(request, refusal)
    return error_response(refusal)


async def _by_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for this class"
    place, headers = f"{request.method} {request.url.path:.200}", dict(error.headers or {})
    match error.status_code:
        case 400:
            message = "the body cannot be read: it must be JSON in UTF-8, not too deep, without endless numbers"
        case 404:
            message = f"there is no {place}; see {request.scope.get('root_path', '')}/docs"
        case 405:
            headers["Allow"] = allowed = _methods(request)
            message = f"{place}: this path takes {allowed}"
        case _:
            message = str(error.detail)
    return error_response(HttpError(error.status_code, message, headers=headers))


def _methods(request: Request) -> str:
    """What a path takes; the framework tells only of the first of its routes."""
    routes = [*request.app.routes, *(route for module in ROUTED for route in module.router.routes)]
    fitting = [r for r in routes if isinstance(r, Route) and r.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in fitting for method in route.methods or ()}))
