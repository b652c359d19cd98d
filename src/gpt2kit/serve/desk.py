"""A model in memory, and the texts that it is writing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from gpt2kit.errors import Gpt2kitError
from gpt2kit.generate.engine import Engine
from gpt2kit.generate.scheduler import Ticket
from gpt2kit.generate.texts import Texts
from gpt2kit.serve.job import Arrival, Job
from gpt2kit.serve.models import Model


class Desk:
    """Where the jobs for one model are done. Only the worker's thread changes it."""

    def __init__(self, model: Model, engine: Engine) -> None:
        self.model, self._engine = model, engine
        self._texts = Texts(engine, model.tokenizer)
        self._tickets: dict[Job, dict[Ticket, None]] = {}
        self._job_of: dict[Ticket, Job] = {}

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return self._texts.scheduler.busy

    @property
    def running(self) -> int:
        """Texts being written."""
        return self._texts.scheduler.running

    @property
    def waiting(self) -> int:
        """Texts that wait for a slot."""
        return self._texts.scheduler.waiting

    @property
    def jobs(self) -> Collection[Job]:
        """Those that are not finished."""
        return self._tickets.keys()

    def begin(self, job: Job) -> None:
        """Queue its texts."""
        tickets = [
            self._texts.begin(job.order.task, request, number, group=job)
            for number, request in enumerate(job.order.requests)
        ]
        self._tickets[job] = dict.fromkeys(tickets)
        self._job_of.update(dict.fromkeys(tickets, job))

    def cancel(self, job: Job) -> None:
        """Nothing more is heard of this job; its slots are free in the next step."""
        for ticket in self._tickets.pop(job, {}):
            self._texts.cancel(ticket)
            del self._job_of[ticket]

    def step(self) -> dict[Job, list[Arrival]]:
        """Think once; what there is to tell, by job. A job of which one text failed is given up."""
        news: defaultdict[Job, list[Arrival]] = defaultdict(list)
        for ticket, arrival in self._texts.step():
            if not (job := self._job_of.get(ticket)):
                continue
            news[job].append(arrival)
            if isinstance(arrival, Gpt2kitError):
                self.cancel(job)
            elif arrival.completion:
                self._finish(ticket, job)
        return news

    def place_of(self, job: Job) -> int | None:
        """How many texts wait before the first of this job that is not finished; None once that is being written."""
        first = next(iter(self._tickets.get(job, ())), None)
        return None if first is None else self._texts.scheduler.position(first)

    def close(self) -> None:
        """Give the model's memory back."""
        self._engine.close()

    def _finish(self, ticket: Ticket, job: Job) -> None:
        del self._job_of[ticket], self._tickets[job][ticket]
        if not self._tickets[job]:
            del self._tickets[job]
