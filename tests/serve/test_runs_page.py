"""The pages /runs and /docs in a real browser, below a prefix and under the strict policy that the server sends."""

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse

from gpt2kit.runs import Run
from gpt2kit.serve import pages, runs
from gpt2kit.serve.errors import HttpError, error_response

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"> & <script>document.title='taken'</script>"
CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(path).exists()), None)
LINUX = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell who holds a lock")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engines:
        chromium = engines.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 900}, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    assert page.complaints == [], "the browser complained"


@pytest.fixture
def place(tmp_path):
    """The server's directory of runs."""
    return tmp_path / "checkpoint"


@contextlib.contextmanager
def serving(place, key=None):
    app = FastAPI(docs_url=None, redoc_url=None, title="gpt2kit", version="1.2.3")
    app.state.runs = place
    app.include_router(runs.router)
    app.include_router(pages.router)
    app.add_exception_handler(HttpError, lambda request, error: error_response(error))

    @app.get("/v1/models")
    def models() -> dict:
        return {"data": [{"id": "run1"}]}

    @app.middleware("http")
    async def guarded(request, call_next):
        asks_for_data = re.search(r"/(api|v1)/|openapi", request.url.path)
        if key and asks_for_data and request.headers.get("authorization") != f"Bearer {key}":
            return JSONResponse({"error": {"message": "a key is needed"}}, 401)
        response = await call_next(request)
        response.headers["content-security-policy"] = POLICY
        return response

    outer = FastAPI()
    outer.mount("/gpt2", app)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(outer, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}/gpt2"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def url(place):
    with serving(place) as address:
        yield address


@pytest.fixture
def make(place, tmp_path):
    """Makes a run with a curve that falls from `loss` on, and samples by step."""

    def made(name, loss=4.0, samples=()):
        run = Run(place / name)
        run.directory.mkdir(parents=True)
        (run.directory / "run.toml").write_text("[training]\nsteps = 100\n", encoding="utf-8")
        for step in range(10, 60, 10):
            learn(run, step, loss - step / 100)
            run.log({"event": "validation", "step": step, "loss": loss - step / 200})
        for step, text in dict(samples).items():
            run.save_sample(step, text, tmp_path / "samples")
        return run

    return made


def learn(run, step, loss):
    run.log({"event": "train", "step": step, "loss": loss, "tokens": step * 1000, "tokens_per_second": 500.0})


def open_runs(page, url, *names):
    page.goto(f"{url}/runs" + "#" + "&".join(f"run={name}" for name in names))
    page.wait_for_selector("#list:not([hidden]), #empty:not([hidden])")


def tick(page, name):
    page.get_by_role("checkbox", name=f"Show {name}").click()


# --- the list ---


def test_without_runs_the_page_tells_how_to_make_one(page, url):
    open_runs(page, url)
    assert "gpt2 finetune my-text.txt" in page.locator("#empty").inner_text()


def test_the_list_tells_how_each_run_stands(page, url, make):
    make("one")
    open_runs(page, url)
    cells = page.get_by_role("row", name="one").get_by_role("cell").all_inner_texts()
    assert cells[1:4] == ["50 of 100", "3.500", "3.750"]


def test_what_is_damaged_is_told_beside_the_run(page, url, make):
    (make("one").directory / "latest").write_text("ten", encoding="utf-8")
    open_runs(page, url)
    assert "found 'ten'" in page.locator(".notes").inner_text()


# --- the chart ---


def test_two_runs_differ_by_more_than_colour(page, url, make):
    make("one")
    make("two", 5.0)
    open_runs(page, url, "one", "two")
    playwright.expect(page.locator("#legend li")).to_have_count(2)
    markers = [marker.get_attribute("d") for marker in page.locator("#legend .marker").all()]
    dashes = [line.get_attribute("stroke-dasharray") for line in page.locator("#legend .learnt").all()]
    assert (len(set(markers)), len(set(dashes))) == (2, 2)
    assert page.locator("#chart .line").count() == 4


def test_a_run_that_is_ticked_is_drawn_and_the_link_remembers_it(page, url, make):
    make("one")
    make("two words", 5.0)
    open_runs(page, url, "one")
    tick(page, "two words")
    playwright.expect(page.locator("#chart .line")).to_have_count(4)
    page.reload()
    playwright.expect(page.locator("#chart .line")).to_have_count(4)
    tick(page, "two words")
    tick(page, "one")
    page.get_by_text("No run is shown").wait_for()


def test_pointing_at_the_chart_tells_the_values_there(page, url, make):
    make("one")
    open_runs(page, url)
    page.wait_for_selector("#chart .line")
    box = page.locator("#chart").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 100)
    told = page.locator(".chart-tip").inner_text()
    assert re.sub(r"\s+", " ", told) == "step 50 one, learnt 3.500 one, held-out 3.750"


def test_arrow_keys_speak_the_values(page, url, make):
    make("one")
    open_runs(page, url)
    page.wait_for_selector("#chart .line")
    chart = page.get_by_role("slider", name="Chart of losses")
    chart.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert chart.get_attribute("aria-valuetext") == "step 20; one, learnt 3.800; one, held-out 3.900"


def test_the_axis_can_count_tokens(page, url, make):
    make("one")
    open_runs(page, url)
    page.get_by_role("button", name="Tokens").click()
    assert page.locator("#chart").get_attribute("aria-valuetext").startswith("tokens 50,000;")


def test_the_held_out_losses_stand_in_a_table_too(page, url, make):
    make("one")
    open_runs(page, url)
    page.get_by_text("as a table").click()
    assert page.locator("#figures-table tbody tr").all_inner_texts()[-1].split() == ["50", "3.750"]


# --- samples ---


def test_samples_can_be_walked_through_and_stay_text(page, url, make):
    make("one", samples={10: "first", 20: HOSTILE})
    open_runs(page, url)
    page.wait_for_selector("#samples:not([hidden])")
    assert page.locator("#sample-text").inner_text() == HOSTILE
    page.get_by_role("button", name="Older sample").click()
    assert (page.locator("#sample-text").inner_text(), page.locator("#sample-step").inner_text()) == (
        "first",
        "Step 10",
    )
    assert page.title() == "Training runs · gpt2kit"


# --- what moves ---


@LINUX
def test_a_run_in_training_moves_without_a_reload(page, url, make, tmp_path):
    run = make("one", samples={10: "ten"})
    with run.locked():
        open_runs(page, url)
        page.get_by_text("In training: one").wait_for()
        assert "500 tokens a second" in page.locator("#legend").inner_text()
        learn(run, 60, 1.234)
        run.save_sample(60, "sixty", tmp_path / "samples")
        page.get_by_text("1.234").first.wait_for()
        page.get_by_text("sixty").wait_for()


@LINUX
def test_a_page_that_nobody_looks_at_asks_nothing(page, url, make):
    with make("one").locked():
        open_runs(page, url)
        page.get_by_text("In training: one").wait_for()
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {get: () => true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        page.wait_for_timeout(500)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(3000)
        assert asked == []


def test_a_server_that_has_gone_is_told_and_what_was_seen_stays(page, place, make):
    make("one")
    with serving(place) as url:
        open_runs(page, url)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("The server does not answer").wait_for()
    assert page.get_by_role("row", name="one").is_visible()
    page.complaints.clear()  # the browser tells the failed request as an error


def test_a_key_is_asked_for_and_used(page, place, make):
    make("one")
    with serving(place, key="secret") as url:
        page.goto(f"{url}/runs")
        page.get_by_label("Key").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        page.get_by_text("does not know this key").wait_for()
        page.get_by_label("Key").fill("secret")
        page.get_by_role("button", name="Use it").click()
        page.get_by_role("row", name="one").wait_for()
        page.complaints.clear()  # the browser tells each 401 as an error


# --- the look of both pages ---


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
@pytest.mark.parametrize("path", ["runs", "docs"])
def test_a_phone_of_360_pixels_shows_all(browser, url, make, path, locale):
    make("a-run-with-a-very-long-name-" * 4, samples={10: "word" * 200})
    context = browser.new_context(viewport={"width": 360, "height": 740}, locale=locale)
    page = context.new_page()
    page.goto(f"{url}/{path}")
    page.wait_for_selector("#sample-text, .route")
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    context.close()


def test_the_page_speaks_chinese_when_asked_to(page, url, make):
    make("one")
    open_runs(page, url)
    page.get_by_role("button", name="中文").click()
    page.get_by_role("heading", name="损失曲线").wait_for()
    assert page.locator("html").get_attribute("lang") == "zh-CN"


# --- the page of routes ---


def test_every_route_is_drawn_from_openapi(page, url):
    page.goto(f"{url}/docs")
    page.wait_for_selector(".route")
    titles = [title.split() for title in page.locator(".route h3").all_inner_texts()]
    assert titles == [["GET", "/v1/models"], ["GET", "/api/runs"], ["GET", "/api/runs/{name}"]]
    assert "404 There is no run of this name." in page.locator("#get-api-runs-name").inner_text()


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_an_example_does_what_it_says(page, url, make):
    make("run1")
    page.goto(f"{url}/docs")
    page.wait_for_selector(".route")
    call = page.locator("#get-api-runs-name .example code").inner_text()
    answer = subprocess.run(["sh", "-c", f"{call} --silent"], capture_output=True, check=True, encoding="utf-8")
    assert '"name":"run1"' in answer.stdout


def test_the_example_in_python_names_a_model_of_this_server(page, url):
    page.goto(f"{url}/docs")
    page.get_by_text('model="run1"').wait_for()
    assert f'base_url="{url}/v1"' in page.locator("#python").inner_text()
