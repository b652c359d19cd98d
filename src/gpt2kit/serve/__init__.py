"""GPT-2 over HTTP: OpenAI's API, a page to write on, the old demos. `create_app` gives all of it as one ASGI app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import CachePrecision, DeviceName, EngineConfig, EngineName, Precision
from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import MissingExtra
from gpt2kit.generate.engine import Engine
from gpt2kit.runs import RUNS

if TYPE_CHECKING:
    from fastapi import FastAPI


def create_app(
    *models: str | Path | Checkpoint,
    config: ServingConfig | None = None,
    keys: Sequence[str] = (),
    memory_bytes: int | None = None,
    engine: EngineName | Callable[[Checkpoint, int], Engine] = "auto",
    device: DeviceName = "auto",
    precision: Precision = "auto",
    kv_cache: CachePrecision = "fp32",
    threads: int | None = None,
    runs: Path = RUNS,
) -> FastAPI:
    """An ASGI application that serves `models`: run it under any server, or mount it in an application of your own.

        app.mount("/gpt2", create_app("124M", "run1", keys=["..."]))

    Args:
        models: what `load` takes; the first answers where a request names none. None is 124M.
        config: limits and the like; its host and port play no part here.
        keys: callers must have one of these; without any, everybody may ask.
        memory_bytes: what the weights of all models in memory may take together; None: most of what is free now.
        engine, device, precision, kv_cache, threads: as for `load`; or an engine of your own, as a function of a
            checkpoint and a number of slots.
        runs: where the runs lie that the page /runs shows.

    The first model is loaded when the application starts or, mounted, at the first request; until it is there, requests
    are answered with status 503 and Retry-After. Stopped and started again, the application loads it again.

    Raises:
        MissingExtra: without the packages of gpt2kit[serve].
        What `load` raises for a model that is not there, or damaged.
    """
    require_packages()
    from gpt2kit.serve.app import build_app
    from gpt2kit.serve.keys import Keys

    if isinstance(engine, str):
        chosen: EngineConfig | Callable[[Checkpoint, int], Engine] = EngineConfig(
            engine=engine, device=device, precision=precision, kv_cache=kv_cache, threads=threads
        )
    else:
        chosen = engine
    return build_app(
        models or ("124M",),
        config or ServingConfig(),
        Keys(keys),
        memory_bytes=memory_bytes,
        engine=chosen,
        runs_directory=runs,
    )


def require_packages() -> None:
    """Raise MissingExtra unless what serving needs is installed."""
    if not all(map(find_spec, ("fastapi", "uvicorn", "prometheus_client"))):
        raise MissingExtra("serving", "serve")
