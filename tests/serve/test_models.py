"""Several models within a budget of memory: read when they are asked for, closed when others need the room."""

import contextlib
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpt2kit.config.engine import EngineConfig
from gpt2kit.errors import ConfigError, ModelNotFound, OutOfMemory
from gpt2kit.formats.peft_adapter import with_adapter
from gpt2kit.runs import Run
from gpt2kit.serve import create_app
from gpt2kit.serve.memory import memory_for_models
from gpt2kit.serve.models import Models

pytestmark = pytest.mark.slow  # real servers, threads and clocks


@pytest.fixture
def three(golden, tmp_path):
    """Directories of three models of one size."""
    return [shutil.copytree(golden / "hf-v5", tmp_path / name) for name in ("one", "two", "three")]


@pytest.fixture
def room(three):
    """The memory that so many of these models take."""
    (model,) = Models(three[:1])
    return lambda count: 4 * model.checkpoint.parameter_count() * count


def noting(opened, engine):
    """The same engines; the names of the models that they are opened for are noted."""

    def open_engine(checkpoint, slots):
        opened.append(Path(checkpoint.origin).name)
        return engine(checkpoint, slots)

    return open_engine


def loaded(server):
    return [model["id"] for model in server.ask("GET", "/v1/models")[2]["data"] if model["loaded"]]


def test_the_first_is_read_at_the_start_the_others_when_they_are_asked_for(serve, three, counting):
    server = serve(*three, engine=counting()).until_ready()
    assert loaded(server) == ["one"]
    assert server.complete(model="three")[2]["model"] == "three"
    assert loaded(server) == ["one", "three"]
    assert server.complete()[2]["model"] == "one"


def test_who_was_idle_longest_makes_room(serve, three, room, counting):
    server = serve(*three, engine=counting(), memory_bytes=room(2)).until_ready()
    server.complete(model="two")
    server.complete(model="one")
    server.complete(model="three")
    assert loaded(server) == ["one", "three"]
    assert server.metric("models_loaded") == 2


def test_weights_of_fewer_bits_need_less_room(serve, three):
    (model,) = Models(three[:1])
    config = {name: EngineConfig(engine="native", precision=name) for name in ("fp32", "bf16")}
    room = model.size_bytes(config["bf16"])
    assert room < model.size_bytes(config["fp32"])
    assert serve(three[0], engine="native", precision="bf16", memory_bytes=room).until_ready().complete()[0] == 200
    with pytest.raises(ConfigError, match=r"one takes .* with a smaller --precision"):
        serve(three[0], engine="native", memory_bytes=room)


def test_a_model_that_is_writing_keeps_its_place(serve, three, room, counting):
    server = serve(*three, engine=counting(seconds=0.002), memory_bytes=room(1)).until_ready()
    with contextlib.closing(server.begin(stream=True, max_tokens=100, ignore_eos=True)) as writing:
        answer = writing.getresponse()
        answer.readline()
        assert server.complete(model="two")[0] == 200  # when the other is done
        rest = answer.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert b"error" not in rest
    assert loaded(server) == ["two"]


def test_a_model_in_demand_cannot_keep_another_out_for_ever(serve, three, room, counting):
    """Who comes after somebody who waits for another model waits too, though his own is there and writing."""
    opened = []
    engine = noting(opened, counting(seconds=0.002))
    server = serve(*three, engine=engine, memory_bytes=room(1)).until_ready()
    with contextlib.ExitStack() as stack:
        ask = lambda **asked: stack.enter_context(contextlib.closing(server.begin(ignore_eos=True, **asked)))  # noqa: E731
        jobs = [ask(model="one", max_tokens=200)]
        server.until(lambda: server.metric("texts_running") == 1)
        jobs.append(ask(model="two", max_tokens=2))
        server.until(lambda: server.metric("texts_waiting") == 1)
        jobs.append(ask(model="one", max_tokens=2))
        assert [job.getresponse().status for job in jobs] == [200] * 3
    assert opened == ["one", "two", "one"]


def test_three_models_with_room_for_one_answer_all_who_ask_at_once(serve, three, room):
    server = serve(*three, engine="reference", memory_bytes=room(1)).until_ready()
    alone = server.complete(model="one", max_tokens=4)[2]["choices"][0]["text"]  # the three have the same weights
    with ThreadPoolExecutor(18) as pool:
        names = ["one", "two", "three"] * 6
        answers = list(pool.map(lambda name: server.complete(model=name, max_tokens=4), names))
    assert [answer["model"] for _, _, answer in answers] == names
    assert {answer["choices"][0]["text"] for _, _, answer in answers} == {alone}
    assert server.app.state.worker.jobs == 0


def test_a_model_that_nobody_waits_for_any_more_is_not_read(serve, three, room, counting):
    opened = []
    engine = noting(opened, counting(seconds=0.002))
    server = serve(*three, engine=engine, memory_bytes=room(1)).until_ready()
    with contextlib.closing(server.begin(max_tokens=200, ignore_eos=True)) as writing:
        server.until(lambda: server.metric("texts_running") == 1)
        impatient = server.begin(model="two")
        server.until(lambda: server.metric("texts_waiting") == 1)
        impatient.close()
        assert writing.getresponse().status == 200
    assert server.complete()[0] == 200
    assert opened == ["one"]


def test_who_streams_hears_that_a_model_is_read_for_him(serve, three, counting):
    gate = threading.Event()

    def open_slowly(checkpoint, slots):
        assert "two" not in str(checkpoint.origin) or gate.wait(30)
        return counting()(checkpoint, slots)

    server = serve(*three, engine=open_slowly).until_ready()
    with contextlib.closing(server.begin(model="two", stream=True, max_tokens=1)) as connection:
        answer = connection.getresponse()
        assert answer.readline() == b": loading two\n"
        assert server.complete(model="one")[0] == 200  # nobody else waits
        gate.set()
        assert answer.read().endswith(b"data: [DONE]\n\n")


def test_a_later_model_that_is_damaged_fails_alone(serve, three, counting):
    weights = three[1] / "model.safetensors"

    def open_reading_all(checkpoint, slots):
        for tensor in checkpoint.tensors.values():
            tensor.read_float32()
        return counting()(checkpoint, slots)

    server = serve(*three, engine=open_reading_all).until_ready()
    weights.write_bytes(weights.read_bytes()[:-1000])  # between the start and the first question
    status, headers, answer = server.complete(model="two")
    assert (status, headers["x-should-retry"], "retry-after" in headers) == (503, "false", False)
    assert "'two' could not be loaded" in answer["error"]["message"]
    assert str(three[1]) not in answer["error"]["message"], "callers need not know where the files lie"
    assert server.complete(model="three")[0] == 200
    assert server.ask("GET", "/health")[0] == 200


@pytest.fixture
def run(golden, tmp_path):
    """A run of which a trainer has saved step 1; `run.save(step)` goes on, and keeps the newest only."""
    run = Run(shutil.copytree(golden / "hf-v5", tmp_path / "story"))
    (run.directory / "model.safetensors").unlink()

    def save(step):
        with run.saving(step, {}, best=False, keep=1) as place:
            shutil.copy(golden / "hf-v5" / "model.safetensors", place)

    run.save = save
    save(1)
    return run


def reading(steps, engine):
    """The same engines, which read all weights first as real ones do; the steps that they read are noted."""

    def open_engine(checkpoint, slots):
        for tensor in checkpoint.tensors.values():
            tensor.read_float32()
        steps.append(checkpoint.step)
        return engine(checkpoint, slots)

    return open_engine


def test_of_a_run_that_is_still_trained_the_newest_step_is_read_where_the_one_that_was_open_is_gone(
    serve, three, run, room, counting
):
    steps = []
    server = serve(three[0], run.directory, engine=reading(steps, counting()), memory_bytes=room(1)).until_ready()
    fingerprints = []
    for step in (2, 3):
        run.save(step)
        reopening, later = (server.complete(model="story")[2]["system_fingerprint"] for _ in range(2))
        assert reopening == later
        fingerprints.append(later)
        assert server.complete()[0] == 200  # the other makes it leave
    assert steps == [None, 2, None, 3, None]
    assert len(set(fingerprints)) == 2


def test_a_run_that_is_served_first_may_be_replaced_before_it_is_read(serve, run, counting):
    steps = []
    app = create_app(run.directory, engine=reading(steps, counting()))
    run.save(2)
    assert serve(app=app).until_ready().complete()[0] == 200
    assert steps == [2]


def test_a_run_that_has_become_another_model_is_not_served(serve, three, run, counting):
    server = serve(three[0], run.directory, engine=reading([], counting())).until_ready()
    settings = run.directory / "config.json"
    settings.write_text(settings.read_text("utf-8").replace('"n_head": 4', '"n_head": 2'), "utf-8")
    run.save(2)
    status, headers, answer = server.complete(model="story")
    assert (status, headers["x-should-retry"], answer["error"]["code"]) == (503, "false", "model_not_loaded")


def test_where_a_model_does_not_fit_after_all_those_that_are_idle_leave_and_it_is_read_once_more(
    serve, three, counting
):
    opened, here = [], []

    def open_engine(checkpoint, slots):
        opened.append(Path(checkpoint.origin).name)
        if len(here) == 2:
            raise OutOfMemory("there is room for two")
        engine = counting()(checkpoint, slots)
        here.append(engine)
        engine.close = lambda: here.remove(engine)
        return engine

    server = serve(*three, engine=open_engine).until_ready()
    assert [server.complete(model=name)[0] for name in ("two", "three")] == [200, 200]
    assert opened == ["one", "two", "three", "three"]
    assert loaded(server) == ["three"]


def test_a_model_that_does_not_fit_even_alone_is_refused_for_now(serve, three, counting):
    def open_engine(checkpoint, slots):
        if "two" in checkpoint.origin:
            raise OutOfMemory("never")
        return counting()(checkpoint, slots)

    server = serve(*three, engine=open_engine).until_ready()
    status, headers, answer = server.complete(model="two")
    assert (status, headers["x-should-retry"], answer["error"]["code"]) == (503, "true", "model_not_loaded")
    assert server.complete()[0] == 200


def test_an_engine_that_cannot_be_closed_stops_nobody(serve, three, room, counting, caplog):
    def open_engine(checkpoint, slots):
        engine = counting()(checkpoint, slots)
        engine.close = lambda: 1 / 0
        return engine

    server = serve(*three, engine=open_engine, memory_bytes=room(1)).until_ready()
    assert [server.complete(model=name)[0] for name in ("two", "one")] == [200, 200]
    assert "one could not be closed" in caplog.text


def test_a_model_larger_than_the_budget_is_refused_at_the_start(three, room):
    with pytest.raises(ConfigError, match=r"^one takes 0\.\d+ MB of memory, and 0\.\d+ MB may be used .* --memory"):
        create_app(*three, memory_bytes=room(1) - 1)
    with pytest.raises(ConfigError, match=r"0\.0 MB may be used"):
        create_app(*three, memory_bytes=0)


def test_the_same_model_twice_is_refused(three):
    with pytest.raises(ConfigError, match=r"two models are called 'one', .*; name it once, or rename"):
        Models([three[0], str(three[0])])


def test_a_model_that_is_not_there_is_missed_at_the_start():
    with pytest.raises(ModelNotFound, match=r"gpt2 download 355M"):
        create_app("355M")


def test_a_run_is_called_by_the_name_it_is_asked_for(three, monkeypatch):
    monkeypatch.chdir(three[0].parent)
    assert [model.name for model in Models(["one", three[1], "./three/"])] == ["one", "two", "three"]


def test_a_model_with_an_adapter_is_called_after_both(golden, tiny_checkpoint):
    base, adapter = golden / "hf-safetensors", golden / "peft" / "c_attn"
    by_name, by_path = (Models([kind(f"{base}+{adapter}")]).default for kind in (str, Path))
    open_already = Models([with_adapter(tiny_checkpoint, adapter)]).default
    assert by_name.name == by_path.name == open_already.name == "hf-safetensors+c_attn"
    (plain,) = Models([base])
    assert plain.name == "hf-safetensors"
    assert plain.fingerprint != by_name.fingerprint


@pytest.mark.parametrize(
    ("free", "limit", "used", "expected"),
    [
        ("MemTotal: 9000 kB\nMemAvailable:    1000 kB\n", None, None, 819_200),
        ("MemAvailable: 1000 kB\n", "max", "5000", 819_200),
        ("MemAvailable: 1000 kB\n", "15000", "5000", 8_000),
        ("MemAvailable: 1000 kB\n", "5000", "6000", 0),
        (None, None, None, sys.maxsize),
    ],
)
def test_most_of_what_the_system_and_the_container_leave_is_for_models(tmp_path, free, limit, used, expected):
    for name, text in {"meminfo": free, "memory.max": limit, "memory.current": used}.items():
        if text:
            (tmp_path / name).write_text(text + "\n", "ascii")
    assert memory_for_models(tmp_path / "meminfo", tmp_path) == expected
