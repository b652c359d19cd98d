"""What a server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from gpt2kit.generate.texts import Piece
from gpt2kit.serve.job import Job
from gpt2kit.serve.worker import Worker

router = APIRouter()

AS_TEXT = {"text/plain": {"schema": {"type": "string"}}}  # in openapi.json
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600)


class Metrics:
    """The figures of one server; two servers in one process share none."""

    def __init__(self, worker: Worker) -> None:
        self.registry = CollectorRegistry()
        self._gauge("texts_running", "Texts being written.", lambda: worker.running)
        self._gauge("texts_waiting", "Texts that wait for a slot, or for their model.", lambda: worker.waiting)
        self._gauge("models_loaded", "Models in memory.", lambda: worker.loaded_models)
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self._new_tokens = self._counter("generation_tokens", "Tokens written.")
        self._finished = Counter(
            "gpt2kit_texts_finished", "Texts that came to their end, by reason.", ["reason"], registry=self.registry
        )
        self._rejected = Counter(
            "gpt2kit_requests_rejected",
            "Requests refused for who asked (401, 403) or for the server's own state (429 and above), by status.",
            ["status"],
            registry=self.registry,
        )
        self.disconnected = self._counter("client_disconnects", "Readers who left before the end.")
        self._first = self._histogram("time_to_first_token_seconds", "From the request to its first token.")
        self._between = self._histogram("inter_token_seconds", "From one token of a text to the next.")
        self._request = self._histogram("request_seconds", "From the request to its end.")

    def refused(self, status: int) -> None:
        """Count a refusal, unless it is for what was asked."""
        if status in (401, 403) or status >= 429:
            self._rejected.labels(str(status)).inc()

    @contextmanager
    def timing(self, job: Job) -> Iterator[Callable[[Sequence[Piece]], None]]:
        """Measure a job while its pieces are noted."""
        begun = time.monotonic()
        latest: dict[int, float] = {}
        self._prompt_tokens.inc(sum(len(request.ids) for request in job.order.requests if request.sample == 0))

        def note(pieces: Sequence[Piece]) -> None:
            now = time.monotonic()
            for piece in pieces:
                if piece.token:
                    self._new_tokens.inc()
                    if not latest:
                        self._first.observe(now - begun)
                    if piece.sample in latest:
                        self._between.observe(now - latest[piece.sample])
                    latest[piece.sample] = now
                if piece.completion:
                    self._finished.labels(piece.completion.reason).inc()

        try:
            yield note
        finally:
            self._request.observe(time.monotonic() - begun)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(f"gpt2kit_{name}", text, registry=self.registry).set_function(value)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"gpt2kit_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"gpt2kit_{name}", text, buckets=SECONDS, registry=self.registry)


@router.get(
    "/metrics", summary="Figures for Prometheus.", response_class=Response, responses={200: {"content": AS_TEXT}}
)
def metrics(request: Request) -> Response:
    """What the server counts, in Prometheus's text format."""
    figures: Metrics = request.app.state.metrics
    return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)
