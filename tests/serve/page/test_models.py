"""The menu of models: whichever is chosen there writes, and is measured by."""

import re
import threading

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.fixture
def reading():
    """Closed, it keeps every model but the first from being read."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def two(serve, counting, make_model, reading):
    """A server of "first", with a window of 512, and "second", with 64, which nobody has asked for yet."""

    def open_engine(checkpoint, slots):
        assert checkpoint.origin == "first" or reading.wait(30)
        return counting()(checkpoint, slots)

    models = make_model("first"), make_model("second", window=64)
    return serve(*models, engine=open_engine).until_ready()


@pytest.fixture
def chooser(sit_at, two):
    """A desk that has the menu and the note beside it at hand."""
    desk = sit_at(two)
    desk.set(temperature=0, max_tokens=3)
    desk.menu, desk.note = desk.page.locator("#model"), desk.page.locator("#model-note")
    desk.meter = desk.page.locator("#meter-text")
    return desk


def test_the_servers_first_model_is_chosen_and_the_others_are_offered(chooser):
    expect(chooser.menu).to_have_value("first")
    expect(chooser.menu.locator("option")).to_have_text(["first", "second (not loaded)"])
    chooser.generate()
    assert [request["model"] for request in chooser.requests] == ["first"]


def test_the_model_that_is_chosen_is_the_one_that_is_asked(chooser, reading):
    reading.set()
    for name in ("second", "first", "second"):
        chooser.menu.select_option(name)
        chooser.generate()
    assert [request["model"] for request in chooser.requests] == ["second", "first", "second"]
    assert len(chooser.model_text) == 9


def test_the_text_is_measured_by_the_window_of_the_model_that_is_chosen(chooser):
    chooser.type("&" * 70)  # no two of them are one token
    expect(chooser.meter).to_have_text("70 / 512 tokens")
    chooser.menu.select_option("second")
    expect(chooser.meter).to_have_text("70 / 64 tokens, the oldest 6 will not be read")
    expect(chooser.note).to_contain_text("reads 64 tokens")
    chooser.menu.select_option("first")
    expect(chooser.meter).to_have_text("70 / 512 tokens")
    expect(chooser.note).to_contain_text("reads 512 tokens")


def test_the_choice_is_kept_over_a_reload(chooser, reading):
    reading.set()
    chooser.menu.select_option("second")
    chooser.page.reload()
    expect(chooser.menu).to_have_value("second")
    expect(chooser.meter).to_contain_text("/ 64 tokens")
    chooser.generate()
    assert chooser.requests[-1]["model"] == "second"


def test_a_choice_that_is_served_no_more_gives_way_to_the_servers_first(chooser):
    chooser.page.evaluate("() => localStorage.setItem('gpt2kit.model', 'gone')")
    chooser.page.reload()
    expect(chooser.menu).to_have_value("first")
    chooser.generate()
    assert chooser.requests[-1]["model"] == "first"


def test_a_model_that_is_not_loaded_is_called_so_and_loaded_to_write(chooser, two, reading):
    chooser.menu.select_option("second")
    expect(chooser.note).to_have_text(re.compile("not in memory yet$"))
    assert two.metric("models_loaded") == 1, "choosing alone loads nothing"
    chooser.go.click()
    expect(chooser.status).to_have_text("Loading the model second…")
    reading.set()
    chooser.wait()
    expect(chooser.menu.locator("option")).to_have_text(["first", "second"])
    expect(chooser.note).not_to_contain_text("not in memory yet")
    assert two.metric("models_loaded") == 2
    assert len(chooser.model_text) == 3
