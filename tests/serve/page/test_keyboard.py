"""By keyboard alone, and read aloud: everything can be reached, is seen where it is, and has a name."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

FOCUSED = """() => {
  const element = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(element);
  return [element.id || element.getAttribute("aria-label") || element.textContent.trim(),
          outlineStyle === "none" ? 0 : parseFloat(outlineWidth)];
}"""
CONTROLS = """() => [...document.querySelectorAll("a[href], button, select, input, textarea, [tabindex='0']")]
  .filter((element) => element.checkVisibility({ visibilityProperty: true }))
  .filter((element) => !element.disabled && element.tabIndex >= 0)
  .map((element) => element.id || element.getAttribute("aria-label") || element.textContent.trim())"""
NAMELESS = re.compile(
    r"^ *- (button|link|textbox|slider|spinbutton|combobox|checkbox|dialog|img|heading)( \[[^\]]*\])*:?$", re.M
)


@pytest.fixture
def written(desk):
    desk.type("Once upon a time")
    desk.generate(lambda: desk.press("Control+Enter"))
    return desk


def walk(page, most=80):
    """What Tab goes through, from the first link until it is back there: names, and how wide the outline is."""
    page.keyboard.press("Tab")  # whoever uses the keyboard is shown the focus
    page.locator(".brand").focus()
    stops = [page.evaluate(FOCUSED)]
    while len(stops) < most:
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop == stops[0] or page.evaluate("document.activeElement === document.body"):
            return stops
        stops.append(stop)
    raise AssertionError(f"no way out after {stops}")


# --- Tab ---


def test_tab_goes_to_every_control_in_the_order_of_the_page(written):
    controls = written.page.evaluate(CONTROLS)
    assert [name for name, _ in walk(written.page)] == controls


@pytest.mark.parametrize("path", ["runs", "docs"])
def test_tab_goes_through_the_other_pages_too(open_page, server, path):
    page = open_page(server, path)
    expect(page.locator("#empty:visible, .route").first).to_be_visible()
    first = [name for name, _ in walk(page, 400)][:5]
    assert first[0] == "gpt2kit"
    assert "API" in first


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_focus_is_seen(written, colours):
    written.page.emulate_media(color_scheme=colours)
    unseen = [name for name, outline in walk(written.page) if outline < 2]
    assert unseen == ["document"]  # there the caret shows it


# --- what keys do ---


def test_a_text_can_be_written_and_branched_without_a_pointer(written):
    before = written.text
    written.press("F2", "ArrowLeft", "ArrowLeft", "Home", "ArrowRight")
    expect(written.tokens.nth(1)).to_be_focused()
    expect(written.popover).to_be_visible()
    written.press("ArrowDown", "ArrowDown")
    chosen = written.page.locator("#popover button:focus")
    expect(chosen).to_have_count(1)
    if chosen.get_attribute("aria-current"):
        written.press("ArrowDown")
    written.press("Enter")
    expect(written.popover).to_be_hidden()
    expect(written.page.locator("#try-label")).to_have_text("try 2 of 2")
    written.wait()
    assert written.text != before
    written.page.keyboard.type("!")
    assert written.text.endswith("!")


def test_escape_leads_from_the_alternatives_to_the_token_and_from_there_to_the_text(written):
    text = written.text
    written.press("F2", "ArrowDown")
    expect(written.page.locator("#popover button:focus")).to_have_count(1)
    written.press("Escape")
    expect(written.page.locator(".token:focus")).to_have_count(1)
    written.press("Escape")
    expect(written.popover).to_be_hidden()
    expect(written.document).to_be_focused()
    assert written.text == text


@pytest.mark.parametrize("button", ["history", "shortcuts"])
def test_a_dialog_takes_the_focus_and_gives_it_back(written, button):
    opener = written.page.locator(f"#{button}")
    opener.focus()
    written.press("Enter")
    dialog = written.page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert dialog.evaluate("dialog => dialog.contains(document.activeElement)")
    written.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()


def test_closing_the_panel_of_settings_leaves_the_focus_at_its_button(sit_at, server):
    desk = sit_at(server, viewport={"width": 800, "height": 700})
    desk.page.locator("#settings").focus()
    desk.press("Enter")
    desk.page.locator("#settings-close").focus()
    desk.press("Enter")
    expect(desk.page.locator("#settings-panel")).to_be_hidden()
    expect(desk.page.locator("#settings")).to_be_focused()


def test_a_question_mark_lists_the_keys_but_not_while_one_types(desk):
    desk.type("Why?")
    expect(desk.page.get_by_role("dialog")).to_be_hidden()
    assert desk.text == "Why?"
    desk.page.locator("#retry").evaluate("() => document.activeElement.blur()")
    desk.press("?")
    listed = desk.page.get_by_role("dialog", name="Keyboard shortcuts")
    for key in ("Ctrl + Enter", "Esc", "Ctrl + R", "Ctrl + Z", "F2", "?"):
        expect(listed).to_contain_text(key)


@pytest.mark.parametrize("keys", [["2"], ["ArrowRight", "ArrowRight", "Enter"]], ids=["number", "arrows"])
def test_an_alternative_is_taken_by_a_number_or_by_arrows(desk, keys):
    desk.set(temperature=1.5)
    desk.page.locator("#count button").nth(1).click()
    desk.type("Once upon a time")
    desk.generate(lambda: desk.press("Control+Enter"))
    second = desk.page.locator(".alternative p").nth(1).text_content()
    desk.press(*keys)
    expect(desk.page.locator("#alternatives")).to_be_hidden()
    assert desk.model_text == second
    expect(desk.document).to_be_focused()


def test_the_browsers_own_keys_keep_their_meaning_in_fields(desk):
    box = desk.page.locator("#stop-strings")
    box.fill("")
    box.focus()
    desk.page.keyboard.type("a?<1")
    desk.press("Control+a", "Delete", "Control+z")
    assert box.input_value() == "a?<1"


# --- read aloud ---


def test_what_goes_on_is_announced(desk):
    status = desk.page.get_by_role("status")
    desk.type("Once upon a time")
    desk.generate()
    expect(status).to_have_text("Done.")
    assert status.get_attribute("aria-live") == "polite"
    # Not token by token: whoever listens is told the text once it is there.
    assert desk.document.get_attribute("aria-live") is None


def names_of(page):
    return page.locator("body").aria_snapshot()


def test_the_parts_of_the_page_have_roles_and_names(written):
    for role, name in [("textbox", "Document"), ("combobox", "Model"), ("navigation", "Pages"), ("button", "Generate")]:
        expect(written.page.get_by_role(role, name=name, exact=True)).to_be_visible()
    snapshot = names_of(written.page)
    assert [line for line in ("- banner", "- main", "- complementary", "- region") if line not in snapshot] == []


def alternatives(desk):
    desk.page.locator("#count button").nth(1).click()
    desk.type("Once upon a time")
    desk.generate()


def popover(desk):
    desk.type("Once upon a time")
    desk.generate()
    desk.tokens.nth(3).click()


STATES = {
    "as it opens": lambda desk: None,
    "alternatives": alternatives,
    "a token": popover,
    "history": lambda desk: (desk.type("Hello"), desk.page.locator("#history").click()),
    "keys": lambda desk: desk.page.locator("#shortcuts").click(),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_everything_that_can_be_used_has_a_name(desk, state):
    state(desk)
    assert NAMELESS.findall(names_of(desk.page)) == []


@pytest.mark.parametrize("path", ["runs", "docs"])
def test_everything_on_the_other_pages_has_a_name(open_page, server, path):
    page = open_page(server, path)
    expect(page.locator("#empty:visible, .route").first).to_be_visible()
    assert NAMELESS.findall(names_of(page)) == []


def test_each_setting_tells_its_help_and_what_is_wrong_with_it(desk):
    box = desk.page.get_by_role("spinbutton", name="Top p")
    box.fill("7")
    told = box.get_attribute("aria-describedby").split()
    texts = [desk.page.locator(f"#{name}").inner_text() for name in told]
    assert any("1 keeps all" in text for text in texts)
    assert "1 is the most." in texts
    assert box.get_attribute("aria-invalid") == "true"


def test_buttons_that_stay_pressed_say_so(desk):
    for name in ("Shade tokens by how unsure the model was", "3 alternatives side by side", "Lock the seed"):
        button = desk.page.get_by_role("button", name=name)
        expect(button).to_have_attribute("aria-pressed", "false")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
