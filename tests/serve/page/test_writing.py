"""The user writes black, the model red and underlined; one button lets it write and stops it."""

import re
import time

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

BLACK, RED = "rgb(29, 27, 24)", "rgb(168, 35, 27)"
ENDLESS = "and then it went on, " * 40


def running(desk):
    """How many texts the server says it writes."""
    figures = desk.page.request.get("metrics").text()
    return float(re.search(r"^gpt2kit_texts_running (\S+)$", figures, re.MULTILINE)[1])


def until_idle(desk):
    late = time.monotonic() + 10
    while running(desk) > 0:
        assert time.monotonic() < late, "the server still writes"


@pytest.fixture
def slow(sit_at, dictate):
    """A desk at which a text of 100 tokens takes five seconds; the server is `slow.server`."""
    server = dictate(ENDLESS, seconds=0.05)
    desk = sit_at(server)
    desk.set(temperature=0, max_tokens=100)
    desk.server = server
    return desk


def begin(desk):
    """Lets the model write until something of it is seen."""
    desk.go.click()
    expect(desk.tokens.nth(2)).to_be_attached()


def test_typed_text_is_black(desk):
    desk.type("Once upon a time")
    assert desk.text == "Once upon a time"
    expect(desk.document).to_have_css("color", BLACK)
    expect(desk.document.locator("*")).to_have_count(0)


def test_the_models_text_is_red_and_underlined_and_the_users_stays_black(desk):
    desk.type("Once upon a time")
    desk.generate()
    assert desk.text == "Once upon a time" + desk.model_text
    for token in (desk.tokens.first, desk.tokens.last):
        expect(token).to_have_css("color", RED)
        expect(token).to_have_css("text-decoration-line", "underline")
    expect(desk.document).to_have_css("color", BLACK)
    expect(desk.document).to_have_css("text-decoration-line", "none")


def test_what_is_written_is_what_the_api_writes(desk):
    desk.type("Once upon a time")
    desk.generate()
    answer = desk.ask(prompt="Once upon a time", temperature=0, max_tokens=20)
    assert desk.model_text == answer["choices"][0]["text"]


def test_with_a_seed_too_what_is_written_is_what_the_api_writes(desk):
    desk.set(temperature=1.2, top_k=50, top_p=0.9, min_p=0.01, repetition_penalty=1.1, max_tokens=40, seed=1234)
    desk.type("Once upon a time")
    desk.generate()
    chosen = {"temperature": 1.2, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1}
    answer = desk.ask(prompt="Once upon a time", max_tokens=40, seed=1234, **chosen)
    assert desk.model_text == answer["choices"][0]["text"]


def test_from_nothing_the_model_begins_itself(desk):
    desk.generate()
    assert desk.text == desk.model_text == desk.ask(prompt="", temperature=0, max_tokens=20)["choices"][0]["text"] != ""


def test_the_next_generation_goes_on_from_all_that_is_there(desk):
    desk.type("Once")
    desk.generate()
    first = desk.text
    desk.generate()
    assert desk.text == first + desk.ask(prompt=first, temperature=0, max_tokens=20)["choices"][0]["text"]


def test_text_is_seen_while_it_is_written(slow):
    slow.type("It began, ")
    begin(slow)
    seen = slow.text
    assert seen.startswith("It began, and")
    assert len(seen) < len(ENDLESS)
    expect(slow.tokens.nth(8)).to_be_attached()
    assert slow.text.startswith(seen)


def test_the_button_to_generate_becomes_the_one_to_stop(slow):
    expect(slow.go).to_have_text("Generate")
    begin(slow)
    expect(slow.go).to_have_text("Stop")
    slow.go.click()
    expect(slow.go).to_have_text("Generate")


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_keeps_the_text_and_the_server_writes_no_more(slow, how):
    slow.type("It began, ")
    begin(slow)
    assert running(slow) == 1
    if how == "button":
        slow.go.click()
    else:
        slow.press("Escape")
    kept = slow.text
    expect(slow.status).to_contain_text("Stopped")
    assert kept == "It began, " + ENDLESS[: len(kept) - 10]
    until_idle(slow)
    slow.page.wait_for_timeout(300)
    assert slow.text == kept
    expect(slow.figures).to_contain_text("stopped")


def test_who_closes_the_page_stops_the_model(slow):
    begin(slow)
    slow.page.close()
    slow.server.until(lambda: slow.server.metric("texts_running") == 0)


def test_typing_while_the_model_writes_stops_it_and_keeps_both(slow):
    slow.type("It began, ")
    slow.press("Control+Enter")
    expect(slow.tokens.nth(2)).to_be_attached()
    slow.page.keyboard.type("Stop it!")
    expect(slow.status).to_contain_text("you changed the text")
    assert re.fullmatch(r"It began, and.*Stop it!", slow.text)
    assert "Stop it!" not in slow.model_text
    until_idle(slow)


@pytest.mark.parametrize("keys", ["Control+Enter", "Meta+Enter"])
def test_the_keyboard_generates_from_within_the_text(desk, keys):
    desk.type("Once upon a time")
    desk.press(keys)
    expect(desk.tokens.first).to_be_attached()
    desk.wait()
    assert desk.text == "Once upon a time" + desk.model_text


def test_enter_is_a_new_line_and_generates_nothing(desk):
    desk.type("One\nTwo")
    assert desk.text == "One\nTwo"
    assert desk.requests == []


def test_control_r_tries_again_and_does_not_load_the_page_again(desk):
    desk.set(temperature=1)
    desk.type("Once upon a time")
    desk.generate()
    desk.page.evaluate("window.mark = 'still here'")
    first = desk.model_text
    desk.press("Control+r")
    expect(desk.page.locator("#try-label")).to_have_text("try 2 of 2")
    desk.wait()
    assert desk.page.evaluate("window.mark") == "still here"
    assert desk.text.startswith("Once upon a time")
    assert desk.model_text != first
    assert [request["prompt"] for request in desk.requests] == ["Once upon a time"] * 2


def test_at_the_caret_in_the_middle_it_writes_between_what_is_there(desk):
    desk.type("The beginning. The end.")
    desk.caret_at(len("The beginning."))
    expect(desk.go).to_have_text("Generate here")
    desk.press("Control+Enter")
    expect(desk.tokens.first).to_be_attached()
    desk.wait()
    written = desk.ask(prompt="The beginning.", temperature=0, max_tokens=20)["choices"][0]["text"]
    assert desk.text == f"The beginning.{written} The end."
    assert desk.model_text == written


def test_the_caret_stands_behind_what_was_written(desk):
    desk.type("The beginning. The end.")
    desk.caret_at(len("The beginning."))
    desk.press("Control+Enter")
    expect(desk.tokens.first).to_be_attached()
    desk.wait()
    desk.page.keyboard.type("<here>")
    assert desk.text == f"The beginning.{desk.model_text}<here> The end."


def test_emoji_chinese_and_new_lines_reach_the_model_as_they_were_typed(desk):
    typed = "Dear 👩‍🚀 of 床前明月光,\n\n\tyour 🙂🇫🇷 é is\n"
    desk.document.focus()
    desk.page.keyboard.insert_text(typed)
    desk.generate()
    assert desk.requests[0]["prompt"] == typed
    assert desk.text == typed + desk.model_text


def test_emoji_chinese_and_new_lines_of_the_model_are_shown_as_it_wrote_them(sit_at, dictate):
    text = "Dear 👩‍🚀 of 床前明月光,\n\n\tyour 🙂🇫🇷 is\n"
    desk = sit_at(dictate(text))
    desk.set(temperature=0, max_tokens=200)
    desk.generate()
    assert desk.model_text == text


def test_a_new_line_at_the_end_can_be_written_behind(sit_at, dictate):
    desk = sit_at(dictate("a line\n"))
    desk.set(temperature=0)
    desk.generate()
    desk.type("next")
    assert desk.text == "a line\nnext"
    assert desk.model_text == "a line\n"


def test_the_figures_say_how_much_how_fast_why_it_ended_and_the_seed(desk):
    desk.set(seed=77, max_tokens=12)
    desk.type("Once upon a time")
    desk.generate()
    figures = desk.figures.inner_text()
    assert figures.startswith("12 tokens")
    assert re.search(r"\d tokens/s", figures)
    assert re.search(r"first after \d+\.\d\d s", figures)
    assert "reached max tokens" in figures
    assert "seed 77" in figures


def test_a_text_that_ended_by_itself_says_so(sit_at, dictate):
    desk = sit_at(dictate("The end."))
    desk.set(temperature=0)
    desk.generate()
    expect(desk.figures).to_contain_text("the text ended")
    desk.generate()
    expect(desk.status).to_contain_text("it wrote nothing")
    assert desk.text == "The end."


def test_reproduce_locks_the_seed_so_that_the_same_text_comes_again(desk):
    desk.set(temperature=1)
    desk.type("Once upon a time")
    desk.generate()
    written, seed = desk.model_text, desk.requests[0]["seed"]
    desk.figures.get_by_role("button", name="reproduce").click()
    expect(desk.page.locator("#seed")).to_have_value(str(seed))
    expect(desk.page.locator("#seed-lock")).to_have_attribute("aria-pressed", "true")
    desk.press("Control+z")
    expect(desk.tokens).to_have_count(0)
    desk.generate()
    assert desk.model_text == written
    assert desk.requests[1] == desk.requests[0]


def test_who_clicks_the_button_goes_on_typing_where_the_caret_was(desk):
    desk.type("Once upon a time")
    desk.generate()
    written = desk.text
    desk.page.keyboard.type(" there was")
    assert desk.text == written + " there was"
