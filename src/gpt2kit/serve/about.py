"""What a server tells of itself: whether it is well, what it offers, what it allows."""

from __future__ import annotations

from fastapi import APIRouter, Request

from gpt2kit import __version__
from gpt2kit.serve.answers import Info, Limits, ServedModel, ServedModels, Status, Version
from gpt2kit.serve.models import Model
from gpt2kit.serve.worker import Worker, unavailable

router = APIRouter()


@router.head("/readyz", include_in_schema=False)
@router.head("/health", include_in_schema=False)
@router.get("/readyz", summary="Whether requests are taken.")
@router.get("/health", summary="Whether requests are taken.")
async def health(request: Request) -> Status:
    """503 while the first model is loaded, while the server stops, and when its engine has failed."""
    worker: Worker = request.app.state.worker
    worker.start()  # mounted, nobody runs our lifespan: whoever asks first starts it
    if (state := worker.state) != "ready":
        raise unavailable(state)
    return Status()


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Whether the engine lives.")
async def alive(request: Request) -> Status:
    """503 when nothing but a new start helps."""
    if request.app.state.worker.state == "dead":
        raise unavailable("dead")
    return Status()


@router.get("/version", summary="The version of gpt2kit.")
async def version() -> Version:
    """The version of gpt2kit."""
    return Version(version=__version__)


@router.get("/info", summary="Limits and defaults of this server.")
async def info(request: Request) -> Info:
    """Limits and defaults of this server."""
    state = request.app.state
    return Info(
        version=__version__,
        engine=state.worker.engine,
        device=state.worker.device,
        default_model=state.models.default.name,
        chat_template=state.config.chat_template,
        limits=Limits(**{name: getattr(state.config, name) for name in Limits.model_fields}),
    )


@router.get("/v1/models", summary="The models served here.")
async def list_models(request: Request) -> ServedModels:
    """OpenAI's list, and for each model its window, its size, and whether it is in memory."""
    return ServedModels(data=[_told(model, request) for model in request.app.state.models])


@router.get("/v1/models/{name:path}", summary="One model.")
async def one_model(name: str, request: Request) -> ServedModel:
    """One entry of that list."""
    return _told(request.app.state.models.find(name), request)


def _told(model: Model, request: Request) -> ServedModel:
    return ServedModel(
        id=model.name,
        created=model.opened,
        max_model_len=model.window,
        parameters=model.checkpoint.parameter_count(),
        loaded=request.app.state.worker.loaded(model),
    )
