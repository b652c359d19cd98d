"""The one thread that owns all engines: orders go in, news of them come out, and nobody else touches an engine.

Between two steps of thought it takes orders and cancellations, so whoever leaves frees his slots within one step. A
model that is not in memory is read by a thread of its own while the others go on; where the memory is used up, the
model that was idle longest makes room.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Literal

from gpt2kit.config.engine import EngineConfig
from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import ConfigError, Gpt2kitError, OutOfMemory, QueueFull
from gpt2kit.generate.engine import Engine
from gpt2kit.serve.desk import Desk
from gpt2kit.serve.errors import HttpError, Unavailable
from gpt2kit.serve.job import Arrival, Job
from gpt2kit.serve.models import Model, Models, OpenEngine
from gpt2kit.serve.ordering import Order

State = Literal["loading", "ready", "draining", "dead"]
Inbox = SimpleQueue[Callable[[], object]]

log = logging.getLogger(__name__)


class Worker:
    """Writes what it is ordered to. All public methods may be called from any thread."""

    def __init__(
        self,
        models: Models,
        config: ServingConfig,
        *,
        memory_bytes: int,
        engine: EngineConfig | OpenEngine,
    ) -> None:
        """`memory_bytes` is what the weights of all models in memory may take together. Raises ConfigError."""
        self._sizes = {model: model.size_bytes(engine) for model in models}
        for model, size_bytes in self._sizes.items():
            if size_bytes > memory_bytes:
                raise ConfigError(
                    f"{model.name} takes {_megabytes(size_bytes)} of memory, and {_megabytes(memory_bytes)} may be "
                    "used for models; give more with --memory, or serve a smaller one, or with a smaller --precision"
                )
        self._models, self._config, self._memory_bytes = models, config, memory_bytes
        self._engine = engine
        self.engine: str = engine.engine if isinstance(engine, EngineConfig) else "own"
        """What it writes with: "auto" until a model has been read."""
        self.device: str = engine.device if isinstance(engine, EngineConfig) else "auto"
        """Where: "auto" until then."""
        self._lock = threading.Lock()  # of _thread, _jobs, and which inbox an order goes into
        self._thread: threading.Thread | None = None
        self._jobs: dict[Job, None] = {}
        self._inbox: Inbox = SimpleQueue()
        self._draining = False
        self.was_ready = False
        """Whether the first model has been read, since the last start."""
        self.fault: BaseException | None = None
        """What ended the thread for ever."""
        # The thread's own:
        self._desks: dict[Model, Desk] = {}  # the one asked last at the end
        self._wanted: dict[Model, deque[Job]] = {}  # models to be read, and who waits for them
        self._loading: Model | None = None
        self._ending = False

    # --- from any thread ---

    def start(self) -> None:
        """Begin to work, with reading the first model; nothing happens if it has begun."""
        with self._lock:
            self._start()

    def stop(self, timeout_seconds: float | None = None) -> bool:
        """Give up what is being written, and end the thread, within a step; False if that lasts too long.

        `start` begins anew.
        """
        with self._lock:
            if not (thread := self._thread):
                return True
            self._inbox.put(self._end)
        thread.join(timeout_seconds)
        return not thread.is_alive()

    def drain(self) -> None:
        """Take no more orders, for ever."""
        self._draining = True

    @property
    def state(self) -> State:
        """Whether orders are taken."""
        if self.fault:
            return "dead"
        if self._draining:
            return "draining"
        return "ready" if self.was_ready else "loading"

    @property
    def jobs(self) -> int:
        """Orders taken and not finished."""
        return len(self._jobs)

    @property
    def running(self) -> int:
        """Texts being written."""
        return sum(desk.running for desk in list(self._desks.values()))

    @property
    def waiting(self) -> int:
        """Texts that wait for a slot, or for their model."""
        at_desks = sum(desk.waiting for desk in list(self._desks.values()))
        return at_desks + sum(len(job.order.requests) for jobs in list(self._wanted.values()) for job in list(jobs))

    @property
    def loaded_models(self) -> int:
        """Models in memory."""
        return len(self._desks)

    def loaded(self, model: Model) -> bool:
        """Whether it is in memory."""
        return model in self._desks

    def require_room(self) -> None:
        """Raise what `submit` would raise now, before work is put into an order."""
        with self._lock:
            self._require_room()

    def submit(self, order: Order) -> Job:
        """Take an order, in a running event loop. Raises QueueFull, Unavailable."""
        with self._lock:
            self._require_room()
            job = Job(order)
            self._jobs[job] = None
            self._inbox.put(lambda: self._begin(job))
        return job

    def cancel(self, job: Job) -> None:
        """Nobody waits for this job any more; its slots are free before the next step."""
        if self._forget(job):
            self._inbox.put(lambda: self._cancel(job))

    async def waits_for(self, job: Job) -> int | str | None:
        """How many texts are before this job's; the name of a model that is read first; None once it is written.

        Answered between two steps, and never where the thread has ended.
        """
        answer: asyncio.Future[int | str | None] = job.loop.create_future()
        self._inbox.put(lambda: job.call(_settle, answer, self._place_of(job)))
        return await answer

    # --- with the lock held ---

    def _require_room(self) -> None:
        self._start()
        if (state := self.state) != "ready":
            raise unavailable(state)
        if len(self._jobs) >= self._config.slots + self._config.queue:
            raise QueueFull(
                f"{len(self._jobs)} requests are being answered or wait already, as many as this server takes; "
                "ask again in a moment"
            )

    def _start(self) -> None:
        if not (self._thread or self._draining or self.fault):
            self._thread = threading.Thread(target=self._work, name="gpt2kit worker", daemon=True)
            self._inbox.put(lambda: self._want(self._models.default))
            self._thread.start()

    # --- in the worker's thread ---

    def _work(self) -> None:
        try:
            while not self._ending:
                self._take_orders()
                for desk in list(self._desks.values()):
                    if desk.busy:
                        self._step(desk)
                        self._load_next()
        except Gpt2kitError as error:  # the first model cannot be had
            log.error("%s", error)
            self.fault = error
        except BaseException as fault:
            log.critical("the engine thread failed", exc_info=fault)
            self.fault = fault
        finally:
            self._close()

    def _take_orders(self) -> None:
        """Do what was asked for since the last step; where there is nothing to think about, wait for it."""
        idle = not any(desk.busy for desk in self._desks.values())
        while idle or not self._inbox.empty():
            self._inbox.get()()
            self._load_next()
            idle = False

    def _step(self, desk: Desk) -> None:
        try:
            news = desk.step()
        except Gpt2kitError as error:  # such as OutOfMemory: the texts are lost, the engine is not
            log.error("%s: %s", desk.model.name, error)
            news = {job: [error] for job in desk.jobs}
            for job in news:
                desk.cancel(job)
        for job, arrivals in news.items():
            if job not in desk.jobs:
                self._forget(job)
            self._tell(job, arrivals)

    def _begin(self, job: Job) -> None:
        waits_for_memory = self._wanted and not self._loading  # nobody overtakes who waits for others to end
        if job.order.model in self._desks and not waits_for_memory:
            self._hand_over(job.order.model, [job])
        else:
            self._want(job.order.model, job)

    def _hand_over(self, model: Model, jobs: Iterable[Job]) -> None:
        self._desks[model] = desk = self._desks.pop(model)
        for job in jobs:
            desk.begin(job)

    def _cancel(self, job: Job) -> None:
        model = job.order.model
        if job in (jobs := self._wanted.get(model, deque())):
            jobs.remove(job)
            if not jobs and model is not self._loading:
                del self._wanted[model]
        elif desk := self._desks.get(model):
            desk.cancel(job)

    def _place_of(self, job: Job) -> int | str | None:
        model = job.order.model
        if job in self._wanted.get(model, ()):
            return model.name
        desk = self._desks.get(model)
        return desk.place_of(job) if desk else None

    def _want(self, model: Model, *jobs: Job) -> None:
        self._wanted.setdefault(model, deque()).extend(jobs)

    def _load_next(self) -> None:
        """Begin to read the next model that is wanted, once there is memory for it."""
        while self._wanted and not self._loading:
            model = next(iter(self._wanted))
            if model in self._desks:
                self._hand_over(model, self._wanted.pop(model))
            elif self._make_room(model):
                self._loading = model
                name = f"loading {model.name}"
                threading.Thread(target=self._load, args=(model, self._inbox), name=name, daemon=True).start()
            else:
                return

    def _make_room(self, model: Model) -> bool:
        """Whether there is memory for this model, once those that were idle longest have left."""
        free = self._memory_bytes - sum(self._sizes[loaded] for loaded in self._desks)
        leaving = list[Model]()
        for idle in self._idle():
            if free < self._sizes[model]:
                leaving.append(idle)
                free += self._sizes[idle]
        if free < self._sizes[model]:
            return False
        self._close_for(model, leaving)
        return True

    def _idle(self) -> list[Model]:
        """Models in memory that write nothing, the one asked longest ago first."""
        return [model for model, desk in self._desks.items() if not desk.busy]

    def _close_for(self, model: Model, leaving: Iterable[Model]) -> None:
        for idle in leaving:
            log.info("%s makes room for %s", idle.name, model.name)
            _close(self._desks.pop(idle))

    def _load(self, model: Model, inbox: Inbox) -> None:
        """In a thread of its own. The inbox is that of the thread that asked: another one may have begun."""
        try:
            engine = model.load(self._engine, self._config.slots)
        except BaseException as error:
            problem = error
            inbox.put(lambda: self._not_loaded(model, problem))
        else:
            inbox.put(lambda: self._loaded(model, engine))

    def _loaded(self, model: Model, engine: Engine) -> None:
        if isinstance(self._engine, EngineConfig):
            self.engine = engine.name
        self.device = str(getattr(engine, "device", "cpu")).partition(":")[0]  # of "cuda:0"
        self._loading, self.was_ready = None, True
        self._desks[model] = Desk(model, engine)
        self._hand_over(model, self._wanted.pop(model))

    def _not_loaded(self, model: Model, error: BaseException) -> None:
        if not self.was_ready:
            raise error
        self._loading = None
        if isinstance(error, OutOfMemory) and (idle := self._idle()):
            self._close_for(model, idle)
            return  # it is wanted still, so it is read once more
        log.error("%s could not be loaded: %s", model.name, error, exc_info=not isinstance(error, Gpt2kitError))
        problem = f"the model {model.name!r} could not be loaded; the server's log tells why"
        gone = HttpError(503, problem, code="model_not_loaded", headers={"x-should-retry": "false"})
        refusal = Unavailable(problem, code="model_not_loaded") if isinstance(error, OutOfMemory) else gone
        for job in self._wanted.pop(model):
            self._tell(job, [refusal])

    def _tell(self, job: Job, arrivals: list[Arrival]) -> None:
        if any(isinstance(arrival, Gpt2kitError) for arrival in arrivals):
            self._forget(job)
        if not job.call(job.arrive, arrivals):
            self.cancel(job)

    def _forget(self, job: Job) -> bool:
        with self._lock:
            known = job in self._jobs
            self._jobs.pop(job, None)
        return known

    def _end(self) -> None:
        self._ending = True

    def _close(self) -> None:
        """Answer everybody who waits: nothing more comes. Who asks from now on asks the next thread."""
        desks, self._desks = list(self._desks.values()), {}
        self._wanted, self._loading, self._ending = {}, None, False
        with self._lock:
            jobs, self._jobs = self._jobs, {}
            self._inbox, self._thread = SimpleQueue(), None
            self.was_ready = self.was_ready and self.fault is not None
        stopped = Unavailable("the server was stopped before this answer was whole", code="draining")
        for job in jobs:
            self._tell(job, [unavailable("dead") if self.fault else stopped])
        for desk in desks:  # last of all, for it may take long
            _close(desk)


def unavailable(state: State) -> Unavailable:
    """Why a worker in this state, which is not "ready", takes no orders."""
    code, message = UNAVAILABLE[state]
    return Unavailable(message, code=code)


def _close(desk: Desk) -> None:
    try:
        desk.close()
    except Exception:  # no reason to stop the others
        log.exception("%s could not be closed", desk.model.name)


def _settle(question: asyncio.Future[int | str | None], answer: int | str | None) -> None:
    if not question.done():
        question.set_result(answer)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


UNAVAILABLE: dict[State, tuple[str, str]] = {  # code, message
    "loading": ("loading", "the model is being loaded; ask again in a moment"),
    "draining": ("draining", "the server is stopping and takes no more requests"),
    "dead": ("engine_dead", "the engine of this server has failed; it must be started again"),
}
