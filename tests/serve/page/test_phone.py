"""A phone of 360 pixels: nothing runs off the screen, and all of it can be reached by a thumb."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LYING = PHONE | {"viewport": {"width": 740, "height": 360}}
LONG_WORD = "Donaudampfschifffahrtsgesellschaft" * 4
# What sticks out of the window, but for what lies in something that scrolls or is meant for readers aloud.
STICKS_OUT = """() => {
  const hidden = (element) => element.closest(".visually-hidden, [hidden]") || !element.checkVisibility();
  const scrolls = (element) => element && (getComputedStyle(element).overflowX !== "visible"
    || scrolls(element.parentElement));
  return [...document.body.querySelectorAll("*")]
    .filter((element) => !hidden(element) && !scrolls(element.parentElement))
    .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map((element) => `${element.tagName}#${element.id}.${element.className} ${element.getBoundingClientRect().right}`);
}"""
SMALL = """() => [...document.querySelectorAll("button, a, select, input")]
  .filter((element) => element.checkVisibility() && !element.matches("p a, .visually-hidden"))
  .map((element) => [element.getAttribute("aria-label") ?? element.id, element.getBoundingClientRect()])
  .filter(([, box]) => box.width < 24 || box.height < 24)
  .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""


@pytest.fixture
def phone(sit_at, server):
    """A desk on a phone, greedy."""
    desk = sit_at(server, **PHONE)
    set_on_phone(desk, temperature=0, max_tokens=30)
    return desk


def set_on_phone(desk, **settings):
    desk.page.locator("#settings").tap()
    desk.set(**settings)
    desk.page.locator("#settings-close").tap()


def empty(desk):
    pass


def written(desk):
    desk.document.tap()
    desk.page.keyboard.type("Once upon a time")
    desk.go.tap()
    desk.wait()


def a_long_word(desk):
    desk.document.tap()
    desk.page.keyboard.insert_text(LONG_WORD)


def tries(desk):
    written(desk)
    set_on_phone(desk, temperature=2)
    desk.generate(desk.page.locator("#retry").tap)


def popover(desk):
    written(desk)
    desk.seen.first.tap()
    expect(desk.popover).to_be_visible()


def alternatives(desk):
    desk.page.locator("#count button").nth(1).tap()
    written(desk)
    expect(desk.page.locator(".alternative")).to_have_count(3)


def settings(desk):
    desk.page.locator("#settings").tap()


def history(desk):
    a_long_word(desk)
    desk.page.locator("#history").tap()


def shaded(desk):
    written(desk)
    desk.page.locator("#shade").tap()


def wrong_setting(desk):
    desk.page.locator("#settings").tap()
    desk.set(top_p=7)
    desk.page.locator("#settings-close").tap()
    desk.go.tap()


def a_full_window(desk):
    desk.page.locator("#model").select_option("hf-safetensors")
    desk.document.tap()
    desk.page.keyboard.insert_text("Too long for it to read. " * 20)
    expect(desk.page.locator("#meter")).to_have_class(re.compile("over"))


STATES = [
    empty,
    written,
    a_long_word,
    tries,
    popover,
    alternatives,
    settings,
    history,
    shaded,
    wrong_setting,
    a_full_window,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_nothing_runs_off_the_screen(phone, state):
    state(phone)
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 360
    assert phone.page.evaluate(STICKS_OUT) == []


def test_nothing_runs_off_the_screen_in_chinese(sit_at, server):
    desk = sit_at(server, locale="zh-CN", **PHONE)
    desk.document.tap()
    desk.page.keyboard.type("Once upon a time")
    desk.go.tap()
    expect(desk.figures).not_to_be_empty()
    assert desk.page.evaluate(STICKS_OUT) == []


@pytest.mark.parametrize("path", ["runs", "docs"])
def test_nothing_runs_off_the_screen_of_the_other_pages(open_page, server, path):
    page = open_page(server, path, **PHONE)
    expect(page.locator("#empty:visible, .route").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate(STICKS_OUT) == []


@pytest.mark.parametrize("path", ["", "runs", "docs"])
def test_what_is_tapped_is_large_enough_for_a_thumb(open_page, server, path):
    page = open_page(server, path, **PHONE)
    expect(page.locator("#model option, #empty:visible, .route").first).to_be_attached()
    assert page.evaluate(SMALL) == []  # WCAG 2.2, 2.5.8


def test_generate_stays_in_reach_wherever_a_long_text_is_scrolled(phone):
    phone.document.tap()
    phone.page.keyboard.insert_text("A line of a long text.\n" * 80)
    for place in ("0", "600", "document.documentElement.scrollHeight"):
        phone.page.evaluate(f"scrollTo(0, {place})")
        expect(phone.go).to_be_in_viewport(ratio=1)


def test_the_line_that_is_typed_is_not_below_the_bar(phone):
    phone.document.tap()
    for _ in range(40):
        phone.press("Enter")
    phone.page.keyboard.type("here")
    caret = (
        "(() => { const range = getSelection().getRangeAt(0).cloneRange(); range.setStart(range.startContainer, 0); \
        return range.getBoundingClientRect().bottom; })()"
    )
    bottom, bar = phone.page.evaluate(f"[{caret}, document.querySelector('#dock').getBoundingClientRect().top]")
    assert 0 < bottom <= bar


def test_enter_is_a_new_line(phone):
    phone.document.tap()
    phone.page.keyboard.type("one")
    phone.press("Enter")
    phone.page.keyboard.type("two")
    assert (phone.text, phone.requests) == ("one\ntwo", [])


def test_a_tap_on_a_token_shows_its_alternatives_and_another_tap_branches(phone):
    written(phone)
    before = phone.text
    phone.seen.first.tap()
    expect(phone.popover.get_by_role("button").first).to_be_in_viewport(ratio=1)
    phone.popover.get_by_role("button", name=re.compile("go on from here")).nth(2).tap()
    expect(phone.popover).to_be_hidden()
    expect(phone.page.locator("#try-label")).to_have_text("try 2 of 2")
    phone.wait()
    assert phone.text != before


def test_a_tap_beside_it_closes_a_tokens_alternatives(phone):
    popover(phone)
    phone.page.locator(".brand").dispatch_event("pointerdown")
    expect(phone.popover).to_be_hidden()


def test_the_panel_of_settings_covers_the_text_only_while_it_is_open(phone):
    panel = phone.page.locator("#settings-panel")
    expect(panel).to_be_hidden()
    phone.page.locator("#settings").tap()
    expect(panel).to_be_in_viewport()
    phone.page.locator("#settings-close").tap()
    expect(panel).to_be_hidden()


def test_on_a_phone_that_lies_the_text_and_the_button_can_be_reached(sit_at, server):
    desk = sit_at(server, **LYING)
    desk.document.tap()
    desk.page.keyboard.insert_text("A line of a long text.\n" * 30)
    expect(desk.go).to_be_in_viewport(ratio=1)
    assert desk.page.evaluate("document.documentElement.scrollWidth") == 740


def test_fields_do_not_make_the_phone_zoom(phone):
    settings(phone)
    sizes = phone.page.locator("#settings-form input:visible, #settings-form textarea").evaluate_all(
        "fields => fields.map((field) => parseFloat(getComputedStyle(field).fontSize))"
    )
    assert min(sizes) >= 16  # below, iOS zooms in


def test_a_tap_on_generate_puts_the_keyboard_of_the_screen_away(phone):
    written(phone)
    expect(phone.document).not_to_be_focused()


def test_all_three_alternatives_can_be_taken_without_scrolling_and_without_keys(phone):
    phone.document.tap()
    phone.page.keyboard.insert_text("A line of a long text.\n" * 40)
    alternatives(phone)
    bar = phone.page.locator("#dock").bounding_box()["y"]
    boxes = [button.bounding_box() for button in phone.page.get_by_role("button", name=re.compile("Take")).all()]
    assert all(box["y"] >= 0 and box["y"] + box["height"] <= bar for box in boxes), (boxes, bar)
    expect(phone.status).to_have_text("Three alternatives: choose one.")
