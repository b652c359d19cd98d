"""The page /runs: how training stands, as it moves; two runs side by side; what the model wrote on the way."""

import contextlib
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from gpt2kit.runs import Run

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='taken'\"> & <script>document.title='taken'</script>"
LINUX = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell who holds a lock")


@pytest.fixture
def place(tmp_path):
    """The server's directory of runs."""
    return tmp_path / "checkpoint"


@pytest.fixture
def server(serve, counting, place):
    return serve(engine=counting(), runs=place).until_ready()


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


@pytest.fixture
def runs_page(open_page, server):
    """Opens the page with these runs shown."""

    def opened(*names, **options):
        page = open_page(server, "runs#" + "&".join(f"run={name}" for name in names), **options)
        expect(page.locator("#list:visible, #empty:visible")).to_be_visible()
        return page

    return opened


def shown(page, name):
    return page.get_by_role("checkbox", name=f"Show {name}", exact=True)


# --- the list ---


def test_without_runs_the_page_tells_how_to_make_one(runs_page):
    expect(runs_page().locator("#empty")).to_contain_text("gpt2 finetune my-text.txt")


def test_the_list_tells_how_each_run_stands(runs_page, make):
    make("one")
    cells = runs_page().get_by_role("row", name="one").get_by_role("cell").all_inner_texts()
    assert cells[1:4] == ["50 of 100", "3.500", "3.750"]


def test_what_is_damaged_is_told_beside_the_run(runs_page, make):
    (make("one").directory / "latest").write_text("ten", encoding="utf-8")
    expect(runs_page().locator(".notes")).to_contain_text("found 'ten'")


@pytest.mark.parametrize("name", [HOSTILE.replace("/", ""), "a&run=b#c?d=%20", "  spaces ", "😀 你好"])
def test_a_run_of_any_name_is_shown_as_it_is_called(runs_page, make, name):
    make(name, samples={10: "written by it"})
    make("another", 5.0)
    page = runs_page()
    expect(page.get_by_role("row").filter(has_text=name.strip())).to_have_count(1)
    for box in page.locator("#rows input[type=checkbox]").all():
        box.set_checked(True)
    expect(page.locator("#chart .line")).to_have_count(4)
    expect(page.locator("#legend li")).to_have_count(2)
    page.locator("#samples select").select_option(label=name)
    expect(page.locator("#sample-text")).to_have_text("written by it")
    page.reload()  # the address names both
    expect(page.locator("#chart .line")).to_have_count(4)
    assert (page.locator("img").count(), page.title()) == (0, "Training runs · gpt2kit")


# --- the chart ---


def test_two_runs_differ_by_more_than_colour(runs_page, make):
    make("one")
    make("two", 5.0)
    page = runs_page("one", "two")
    expect(page.locator("#legend li")).to_have_count(2)
    markers = [marker.get_attribute("d") for marker in page.locator("#legend .marker").all()]
    dashes = [line.get_attribute("stroke-dasharray") for line in page.locator("#legend .learnt").all()]
    assert (len(set(markers)), len(set(dashes))) == (2, 2)
    expect(page.locator("#chart .line")).to_have_count(4)


def test_a_run_that_is_ticked_is_drawn_and_the_link_remembers_it(runs_page, make):
    make("one")
    make("two words", 5.0)
    page = runs_page("one")
    shown(page, "two words").click()
    expect(page.locator("#chart .line")).to_have_count(4)
    page.reload()
    expect(page.locator("#chart .line")).to_have_count(4)
    shown(page, "two words").click()
    shown(page, "one").click()
    expect(page.get_by_text("No run is shown")).to_be_visible()


def test_pointing_at_the_chart_tells_the_values_there(runs_page, make):
    make("one")
    page = runs_page()
    expect(page.locator("#chart .line").first).to_be_attached()
    box = page.locator("#chart").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 100)
    told = page.locator(".chart-tip").inner_text()
    assert re.sub(r"\s+", " ", told) == "step 50 one, learnt 3.500 one, held-out 3.750"


def test_arrow_keys_speak_the_values(runs_page, make):
    make("one")
    page = runs_page()
    expect(page.locator("#chart .line").first).to_be_attached()
    chart = page.get_by_role("slider", name="Chart of losses")
    chart.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert chart.get_attribute("aria-valuetext") == "step 20; one, learnt 3.800; one, held-out 3.900"


def test_the_axis_can_count_tokens(runs_page, make):
    make("one")
    page = runs_page()
    page.get_by_role("button", name="Tokens").click()
    expect(page.locator("#chart")).to_have_attribute("aria-valuetext", re.compile("^tokens 50,000;"))


def test_the_held_out_losses_stand_in_a_table_too(runs_page, make):
    make("one")
    page = runs_page()
    page.get_by_text("as a table").click()
    assert page.locator("#figures-table tbody tr").all_inner_texts()[-1].split() == ["50", "3.750"]


# --- samples ---


def test_samples_can_be_walked_through_and_stay_text(runs_page, make):
    make("one", samples={10: "first", 20: HOSTILE})
    page = runs_page()
    expect(page.locator("#sample-text")).to_have_text(HOSTILE)
    page.get_by_role("button", name="Older sample").click()
    expect(page.locator("#sample-text")).to_have_text("first")
    expect(page.locator("#sample-step")).to_have_text("Step 10")
    assert (page.locator("img").count(), page.title()) == (0, "Training runs · gpt2kit")


# --- what moves ---


@LINUX
def test_a_run_in_training_moves_without_a_reload(runs_page, make, tmp_path):
    run = make("one", samples={10: "ten"})
    with run.locked():
        page = runs_page()
        expect(page.get_by_text("In training: one")).to_be_visible()
        expect(page.locator("#legend")).to_contain_text("500 tokens a second")
        learn(run, 60, 1.234)
        run.save_sample(60, "sixty", tmp_path / "samples")
        expect(page.get_by_text("1.234").first).to_be_visible()
        expect(page.locator("#sample-text")).to_have_text("sixty")


@LINUX
def test_a_page_that_nobody_looks_at_asks_nothing(runs_page, make):
    with make("one").locked():
        page = runs_page()
        expect(page.get_by_text("In training: one")).to_be_visible()
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {get: () => true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        page.wait_for_timeout(500)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(3000)
        assert asked == []


def test_a_server_that_has_gone_is_told_and_what_was_seen_stays(runs_page, make, complaints):
    make("one")
    page = runs_page()
    page.context.set_offline(True)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_text("The server cannot be reached")).to_be_visible()
    expect(page.get_by_role("row", name="one")).to_be_visible()
    page.context.set_offline(False)
    expect(page.get_by_text("The server cannot be reached")).to_be_hidden()
    complaints.clear()  # the browser tells the failed requests as errors


def test_a_key_is_asked_for_and_used(serve, counting, place, make, open_page, complaints):
    make("one")
    page = open_page(serve(engine=counting(), runs=place, keys=["sesame"]), "runs")
    for key, answer in [
        ("poppy", page.get_by_text("does not know this key")),
        ("sesame", page.get_by_role("row", name="one")),
    ]:
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Use it").click()
        expect(answer).to_be_visible()
    complaints.clear()  # the browser tells each 401 as an error


# --- its look ---


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_a_phone_of_360_pixels_shows_all(runs_page, make, locale):
    make("a-run-with-a-very-long-name-" * 4, samples={10: "word" * 200})
    page = runs_page(viewport={"width": 360, "height": 740}, locale=locale)
    expect(page.locator("#sample-text")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_page_speaks_chinese_when_asked_to(runs_page, make):
    make("one")
    page = runs_page()
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="损失曲线")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")


def test_the_trainer_does_not_wait_for_the_page(runs_page, make):
    run = make("one")
    runs_page()
    with contextlib.ExitStack() as lock:
        lock.enter_context(run.locked())
        learn(run, 70, 2.0)
    assert run.metrics("train")[-1]["step"] == 70
