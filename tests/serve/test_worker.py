"""The engine thread by itself: faults, ends and new beginnings. No HTTP, but a real thread and real event loops."""

import asyncio
import gc
import logging
import threading
import time

import pytest

from gpt2kit.config.engine import EngineConfig
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import FormatError, OutOfMemory, RequestError
from gpt2kit.serve.errors import Unavailable
from gpt2kit.serve.job import Job, Order
from gpt2kit.serve.models import Models
from gpt2kit.serve.worker import Worker

pytestmark = pytest.mark.slow  # real servers, threads and clocks

FOR_EVER = 1_000_000


@pytest.fixture(scope="session")
def models(golden):
    """Two; the first answers where none is named."""
    return Models([golden / "hf-safetensors", golden / "hf-v5"])


@pytest.fixture
def work(models):
    """Starts a worker whose engine is given, and waits until it is ready or dead; it stops with the test."""
    workers = []

    def start(engine, **settings):
        worker = Worker(models, ServingConfig(**settings), memory_bytes=2**40, engine=engine)
        workers.append(worker)
        worker.start()
        until(lambda: worker.state != "loading")
        return worker

    yield start
    assert all(worker.stop(timeout_seconds=10) for worker in workers)


@pytest.fixture(scope="session")
def order(models):
    """An order of so many texts of so many tokens for the first model, or the one named."""

    def make(texts=1, tokens=5, name=None):
        model = models.find(name)
        greedy = SamplingConfig(temperature=0)
        task = model.requests.task(greedy, StopConfig(max_new_tokens=tokens, ignore_end=True))
        return Order(model, task, texts, tuple(model.requests.request(task, [40], sample) for sample in range(texts)))

    return make


def until(true, seconds=10):
    late = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < late, "it never came true"
        time.sleep(0.001)


async def ids_of(job):
    """All that a job brings, text by text."""
    ids = [[] for _ in job.order.requests]
    while not job.over:
        for piece in await job.take():
            ids[piece.sample] += [piece.token.id] if piece.token else []
    return ids


async def outcome(job):
    """What ended it, if an error did."""
    try:
        await ids_of(job)
    except Exception as error:
        return error


def test_what_is_ordered_is_written(work, counting, order):
    async def ask():
        worker = work(counting())
        return await asyncio.gather(*(ids_of(worker.submit(order(2, tokens=3))) for _ in range(20)))

    assert asyncio.run(ask()) == [[[41, 42, 43]] * 2] * 20


def test_jobs_of_several_event_loops_end_in_their_own(work, counting, order):
    worker = work(counting())
    answers = []

    async def ask():
        return await ids_of(worker.submit(order()))

    askers = [threading.Thread(target=lambda: answers.append(asyncio.run(ask()))) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert answers == [[[41, 42, 43, 44, 45]]] * 8


def test_a_fault_of_the_engine_answers_all_who_wait_and_all_who_come(work, counting, order, caplog):
    async def ask():
        worker = work(counting(fault=ZeroDivisionError("a bit flipped"), at=20), slots=1)
        waiting = [worker.submit(order(tokens=FOR_EVER)) for _ in range(3)]
        waiting.append(worker.submit(order(tokens=FOR_EVER, name="hf-v5")))
        errors = await asyncio.gather(*map(outcome, waiting))
        assert [error.code for error in errors] == ["engine_dead"] * 4
        assert (worker.state, worker.jobs, worker.running, worker.waiting) == ("dead", 0, 0, 0)
        with pytest.raises(Unavailable, match="must be started again"):
            worker.submit(order())
        worker.start()
        assert worker.state == "dead", "a broken engine is not started again behind anybody's back"

    asyncio.run(ask())
    assert "a bit flipped" in caplog.text


def test_an_engine_that_cannot_even_be_closed_after_its_fault_leaves_nobody_waiting(work, counting, order, caplog):
    def close():
        raise OSError("stuck")

    def open_engine(checkpoint, slots):
        engine = counting(fault=ZeroDivisionError("a bit flipped"), at=20)(checkpoint, slots)
        engine.close = close
        return engine

    async def ask():
        worker = work(open_engine, slots=1)
        waiting = [worker.submit(order(tokens=FOR_EVER, name=name)) for name in (None, None, "hf-v5")]
        errors = await asyncio.wait_for(asyncio.gather(*map(outcome, waiting)), 10)
        assert [error.code for error in errors] == ["engine_dead"] * 3
        assert (worker.state, worker.jobs, str(worker.fault)) == ("dead", 0, "a bit flipped")
        with pytest.raises(Unavailable, match="must be started again"):
            worker.submit(order())

    asyncio.run(ask())
    until(lambda: caplog.text.count("OSError: stuck") == 2)  # each of the two models


def test_orders_that_come_while_the_engine_fails_are_all_answered(work, counting, order):
    """Whatever the moment: before the fault, in the middle of it, or after."""

    async def ask():
        worker = work(counting(fault=ZeroDivisionError(), at=5), queue=10_000)
        errors = []
        late = time.monotonic() + 10
        while worker.state != "dead" or len(errors) < 10:
            assert time.monotonic() < late
            try:
                errors.append(asyncio.create_task(outcome(worker.submit(order(tokens=FOR_EVER)))))
            except Unavailable as error:
                errors.append(asyncio.sleep(0, error))
            await asyncio.sleep(0)
        return await asyncio.wait_for(asyncio.gather(*errors), 10)

    assert {error.code for error in asyncio.run(ask())} == {"engine_dead"}


def test_where_memory_runs_out_in_a_step_the_texts_are_lost_the_engine_is_not(work, counting, order):
    async def ask():
        worker = work(counting(fault=OutOfMemory("no memory left"), at=5))
        lost = [worker.submit(order(2, tokens=FOR_EVER)) for _ in range(2)]
        elsewhere = worker.submit(order(tokens=3, name="hf-v5"))
        assert [str(error) for error in await asyncio.gather(*map(outcome, lost))] == ["no memory left"] * 2
        assert await ids_of(elsewhere) == [[41, 42, 43]]
        assert (worker.state, worker.jobs) == ("ready", 0)
        assert await ids_of(worker.submit(order(tokens=2))) == [[41, 42]]

    asyncio.run(ask())


def test_a_job_of_which_one_text_cannot_be_written_is_given_up(work, counting, order, models):
    async def ask():
        worker = work(counting())
        fine = order(tokens=FOR_EVER)
        everything = SamplingConfig(temperature=0, banned_ids=tuple(range(320)))
        stop = StopConfig(max_new_tokens=5)
        task = models.default.requests.task(everything, stop)
        hopeless = models.default.requests.request(task, [40])
        error = await outcome(worker.submit(Order(models.default, task, 2, (*fine.requests, hopeless))))
        assert isinstance(error, RequestError)
        until(lambda: worker.running == worker.jobs == 0)

    asyncio.run(ask())


def test_a_first_model_that_cannot_be_read_is_the_end(work, caplog):
    def damaged(checkpoint, slots):
        raise FormatError("model.safetensors", 8, "not a header")

    worker = work(damaged)
    assert (worker.state, worker.was_ready) == ("dead", False)
    assert str(worker.fault) == "model.safetensors: not a header (at byte 8)"
    assert [record.exc_info for record in caplog.records if record.levelno >= logging.ERROR] == [None], "one line"


def test_a_fault_of_ours_while_a_later_model_is_read_ends_nothing_else(work, counting, order, caplog):
    def open_the_first_only(checkpoint, slots):
        if checkpoint.origin.endswith("hf-v5"):
            raise ZeroDivisionError("in the middle of reading")
        return counting()(checkpoint, slots)

    async def ask():
        worker = work(open_the_first_only)
        jobs = [worker.submit(order(name="hf-v5")), worker.submit(order(name="hf-v5"))]
        errors = await asyncio.gather(*map(outcome, jobs))
        assert {(error.status, error.headers["x-should-retry"]) for error in errors} == {(503, "false")}
        assert await ids_of(worker.submit(order(tokens=1))) == [[41]]
        assert worker.jobs == 0

    asyncio.run(ask())
    assert "in the middle of reading" in caplog.text


def test_a_worker_that_was_stopped_can_be_started_again(work, counting, order):
    async def ask():
        worker = work(counting())
        for _ in range(3):
            job = worker.submit(order(tokens=FOR_EVER))
            assert await asyncio.to_thread(worker.stop)
            assert (await outcome(job)).code == "draining"
            assert (worker.state, worker.jobs, worker.loaded_models) == ("loading", 0, 0)
            worker.start()
            until(lambda: worker.state == "ready")
            assert await ids_of(worker.submit(order(tokens=1))) == [[41]]

    asyncio.run(ask())


def test_a_worker_is_stopped_twice_or_before_it_began_without_harm(models):
    worker = Worker(models, ServingConfig(), memory_bytes=2**40, engine=EngineConfig(engine="reference"))
    assert worker.stop()
    worker.start()
    while not worker.stop(timeout_seconds=0):
        pass
    assert worker.stop()
    worker.start()
    until(lambda: worker.state == "ready")
    assert worker.stop(timeout_seconds=10)


def test_a_worker_that_is_drained_takes_no_orders_ever_again(work, counting, order):
    async def ask():
        worker = work(counting())
        job = worker.submit(order(tokens=3))
        worker.drain()
        with pytest.raises(Unavailable, match="stopping"):
            worker.submit(order())
        assert await ids_of(job) == [[41, 42, 43]]
        worker.stop()
        worker.start()
        assert worker.state == "draining"
        with pytest.raises(Unavailable, match="stopping"):
            worker.submit(order())

    asyncio.run(ask())


def test_a_reader_whose_event_loop_is_gone_holds_no_slot(work, counting, order):
    worker = work(counting(seconds=0.001))

    async def ask_and_go():
        job = worker.submit(order(2, tokens=FOR_EVER))
        question = asyncio.ensure_future(worker.waits_for(job))
        await asyncio.sleep(0.01)
        question.cancel()

    asyncio.run(ask_and_go())
    until(lambda: worker.jobs == 0 == worker.running, seconds=1)
    assert worker.state == "ready"


def test_a_job_that_is_cancelled_before_it_began_never_begins(work, counting, order):
    gate = threading.Event()

    async def ask():
        worker = work(counting(gate=gate))
        first = worker.submit(order(tokens=1))
        await asyncio.sleep(0.05)  # the engine is in the middle of its step
        for _ in range(100):
            worker.cancel(worker.submit(order(4, tokens=FOR_EVER)))
        assert worker.jobs == 1
        gate.set()
        assert await ids_of(first) == [[41]]
        until(lambda: worker.running == worker.waiting == 0)

    asyncio.run(ask())


@pytest.mark.slow
def test_thousands_of_orders_leave_nothing_behind(work, counting, order):
    async def ask():
        worker = work(counting())
        for round_ in range(40):
            jobs = [worker.submit(order(tokens=2)) for _ in range(50)]
            for job in jobs[:round_]:
                worker.cancel(job)
            await asyncio.gather(*map(ids_of, jobs[round_:]))
        until(lambda: worker.jobs == worker.running == worker.waiting == 0)

    before = jobs_alive()
    asyncio.run(ask())
    # The thread may have cancellations to read still; the last stays in the frame of the idle thread.
    until(lambda: jobs_alive() - before <= 1)


def jobs_alive():
    gc.collect()
    return sum(type(thing) is Job for thing in gc.get_objects())  # isinstance() wakes what torch deprecates
