import os
import threading

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from gpt2kit.runs import Run
from gpt2kit.serve import runs
from gpt2kit.serve.errors import HttpError, error_response

SETTINGS = "[training]\nsteps = 100\n"


@pytest.fixture
def place(tmp_path):
    """The server's directory of runs."""
    return tmp_path / "checkpoint"


@pytest.fixture
def client(place):
    app = FastAPI()
    app.state.runs = place
    app.include_router(runs.router)
    app.add_exception_handler(HttpError, lambda request, error: error_response(error))
    return TestClient(app)


@pytest.fixture
def make(place):
    """Makes a run with these losses by step, and samples by step."""

    def made(name, learnt=(), held_out=(), samples=()):
        run = Run(place / name)
        run.directory.mkdir(parents=True)
        (run.directory / "run.toml").write_text(SETTINGS, encoding="utf-8")
        for step, loss in dict(learnt).items():
            run.log(
                {"event": "train", "step": step, "loss": loss, "tokens": step * 32, "tokens_per_second": 1000 + step}
            )
        for step, loss in dict(held_out).items():
            run.log({"event": "validation", "step": step, "loss": loss})
        for step, text in dict(samples).items():
            run.save_sample(step, text, place.parent / "samples")
        return run

    return made


def standing(client, name):
    response = client.get(f"/api/runs/{name}")
    assert response.status_code == 200, response.text
    return response.json()


# --- the list ---


def test_without_a_directory_of_runs_the_list_is_empty(client):
    assert client.get("/api/runs").json() == {"runs": [], "other_programs": []}


def test_a_run_is_listed_as_it_stands(client, make):
    make("one", {10: 3.0, 20: 2.0}, {20: 2.5})
    (row,) = client.get("/api/runs").json()["runs"]
    expected = {"name": "one", "step": 20, "steps": 100, "loss": 2.0, "validation_loss": 2.5, "training": False}
    assert {key: row[key] for key in expected} == expected
    assert row.keys() - expected == {"best_step", "size_bytes", "saved", "notes"}


def test_runs_of_old_programs_are_listed_by_name(client, place, golden):
    place.mkdir()
    (place / "old").symlink_to(golden / "openai-tiny", target_is_directory=True)
    assert client.get("/api/runs").json()["other_programs"] == ["old"]


def test_damage_is_a_note_and_the_other_runs_are_there(client, make):
    make("whole", {1: 3.0})
    damaged = make("damaged", {1: 3.0})
    (damaged.directory / "latest").write_text("ten", encoding="utf-8")
    (damaged.directory / "run.toml").write_text("=", encoding="utf-8")
    listed = {run["name"]: run["notes"] for run in client.get("/api/runs").json()["runs"]}
    assert listed.keys() == {"whole", "damaged"}
    assert "found 'ten'" in listed["damaged"][0]
    assert "not TOML" in listed["damaged"][1]


def test_a_curve_that_cannot_be_read_is_a_note(client, make):
    run = make("one", samples={10: "ten"})
    run.metrics_path.mkdir()
    assert "Is a directory" in client.get("/api/runs").json()["runs"][0]["notes"][0]
    assert [sample["text"] for sample in standing(client, "one")["samples"]] == ["ten"]


# --- one run ---


def test_the_curves_are_those_that_were_measured(client, make):
    make("one", {1: 4.0, 10: 3.0, 20: 2.0}, {10: 3.5, 20: 2.5})
    told = standing(client, "one")
    assert told["learnt"] == {"steps": [1, 10, 20], "losses": [4, 3, 2]}
    assert told["held_out"] == {"steps": [10, 20], "losses": [3.5, 2.5]}
    assert told["tokens_per_second"] == [1001, 1010, 1020]
    assert told["tokens_per_step"] == 32
    assert told["name"] == "one"


def test_a_run_that_has_only_begun_has_empty_curves(client, make):
    make("one")
    told = standing(client, "one")
    assert (told["learnt"], told["samples"]) == ({"steps": [], "losses": []}, [])
    assert (told["tokens_per_second"], told["tokens_per_step"]) == (None, None)


def test_a_long_curve_is_thinned_to_means_and_its_speeds_with_it(client, make):
    make("one", {step: float(step) for step in range(1, 2001)})
    told = standing(client, "one")
    assert told["learnt"]["steps"] == told["learnt"]["losses"] == [4 * n + 2.5 for n in range(500)]
    assert told["tokens_per_second"] == [1002.5 + 4 * n for n in range(500)]


def test_numbers_that_json_does_not_know_never_arrive(client, make, place):
    run = make("one", {1: 3.0, 2: float("nan"), 3: float("inf")}, {1: float("-inf")})
    with run.metrics_path.open("a", encoding="utf-8") as file:
        file.write('{"event": "train", "step": 4, "loss": 2.5, "tokens_per_second": NaN, "tokens": 1e999}\n')
        file.write('{"event": "train", "step": 5, "loss": 2.5, "tokens_per_second": 1' + "0" * 400 + "}\n")
        file.write('{"event": "train", "step": "six", "loss": [], "tokens": "many"}\n')
        file.write("[" * 100_000 + "\n")
    told = standing(client, "one")
    assert told["learnt"] == {"steps": [1, 4, 5], "losses": [3.0, 2.5, 2.5]}
    assert told["tokens_per_second"] == [1001, None, None]
    assert told["held_out"]["losses"] == []


@pytest.mark.filterwarnings("ignore:overflow")
def test_losses_whose_mean_overflows_are_unknown(client, make):
    make("one", {step: 1.7e308 for step in range(1, 1501)})
    assert standing(client, "one")["learnt"]["losses"] == [None] * 500


# --- samples ---


def test_samples_come_newest_first_by_their_step(client, make):
    make("one", samples={90: "ninety", 100: "hundred", 1000: "唐诗\n<b>"})
    assert standing(client, "one")["samples"] == [
        {"step": 1000, "text": "唐诗\n<b>"},
        {"step": 100, "text": "hundred"},
        {"step": 90, "text": "ninety"},
    ]


def test_many_and_long_samples_are_cut(client, make):
    make("one", samples={step: "長" * 30_000 for step in range(1, 31)})
    samples = standing(client, "one")["samples"]
    assert [sample["step"] for sample in samples] == list(range(30, 10, -1))
    assert {len(sample["text"]) for sample in samples} == {20_000}


def test_what_is_no_sample_is_passed_over(client, make):
    run = make("one", samples={10: "ten"})
    (run.directory / "samples" / "samples-x").touch()
    (run.directory / "samples" / "samples-20").mkdir()
    (run.directory / "samples" / ".samples-30.partial").touch()
    assert [sample["step"] for sample in standing(client, "one")["samples"]] == [10]


def test_bytes_that_are_no_text_are_shown_as_such(client, make):
    run = make("one", samples={10: ""})
    (run.directory / "samples" / "samples-10").write_bytes(b"a\xffb")
    assert standing(client, "one")["samples"] == [{"step": 10, "text": "a\N{REPLACEMENT CHARACTER}b"}]


def test_a_link_out_of_the_run_is_not_followed(client, make, tmp_path):
    run = make("one", samples={10: "ten"})
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (run.directory / "samples" / "samples-20").symlink_to(tmp_path / "secret")
    assert [sample["text"] for sample in standing(client, "one")["samples"]] == ["ten"]


def test_a_run_that_lies_on_another_disk_is_followed(client, make, place, tmp_path):
    run = make("one", samples={10: "ten"})
    run.directory.rename(tmp_path / "elsewhere")
    (place / "one").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert standing(client, "one")["samples"] == [{"step": 10, "text": "ten"}]


# --- names ---


def test_an_unknown_run_is_a_404_that_names_the_nearest(client, make):
    make("shakespeare")
    response = client.get("/api/runs/shakespear")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "run_not_found"
    assert "did you mean 'shakespeare'?" in response.json()["error"]["message"]


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2fcheckpoint%2fone", "%2ftmp", "one%2f..%2fone", "one%00", "*"])
def test_no_name_leads_out_of_the_directory_of_runs(client, make, name):
    make("one", {1: 3.0})
    assert client.get(f"/api/runs/{name}").status_code == 404


@pytest.mark.parametrize("name", ["唐诗", "two words", "v1.0-b_2"])
def test_runs_of_every_allowed_name_can_be_asked_for(client, make, name):
    make(name, {1: 3.0})
    assert standing(client, name)["name"] == name


def test_a_name_that_is_no_text_is_told_as_far_as_it_is(client, make, place):
    make("one", {1: 3.0})
    try:
        os.rename(place / "one", os.fsencode(place) + b"/o\xff")
    except OSError:
        pytest.skip("this file system takes only text for names")
    assert [run["name"] for run in client.get("/api/runs").json()["runs"]] == ["o?"]


# --- a trainer at work ---


def test_a_torn_last_line_is_not_read_yet(client, make):
    run = make("one", {1: 3.0})
    with run.metrics_path.open("a", encoding="utf-8") as file:
        file.write('{"event": "train", "step": 2, "lo')
    assert standing(client, "one")["learnt"]["steps"] == [1]


@pytest.mark.slow
def test_readers_and_a_trainer_do_not_disturb_each_other(client, make, tmp_path):
    run = make("one", {1: 3.0})
    done = threading.Event()

    def train():
        for step in range(2, 60):
            run.log({"event": "train", "step": step, "loss": 2.0})
            run.save_sample(step, "text", tmp_path / "samples")
            with run.saving(step, {}, best=True, keep=1) as directory:
                (directory / "model.safetensors").write_bytes(bytes(10))
        done.set()

    trainer = threading.Thread(target=train)
    trainer.start()
    seen = []
    while not done.is_set():
        seen.append(len(standing(client, "one")["learnt"]["steps"]))
        assert client.get("/api/runs").status_code == 200
    trainer.join()
    assert seen == sorted(seen)
    assert len(standing(client, "one")["learnt"]["steps"]) == 59
