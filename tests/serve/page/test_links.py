"""A link carries prompt and settings to another browser; Copy takes the whole text along."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
NO_CLIPBOARD = "Object.defineProperty(Navigator.prototype, 'clipboard', { value: undefined });"


@pytest.fixture
def linking(sit_at, server):
    """A desk that may use the clipboard."""
    return sit_at(server, permissions=["clipboard-read", "clipboard-write"])


def copied_link(desk):
    desk.page.get_by_role("button", name="Link with prompt and settings").click()
    expect(desk.status).to_have_text(re.compile("Link copied"))
    return desk.page.evaluate("navigator.clipboard.readText()")


def test_a_link_opens_prompt_and_settings_in_another_browser(linking, sit_at, server):
    prompt = "A prompt & more: 50 % + #1?\n\n你好 😀\n"
    linking.type(prompt)
    linking.set(temperature=0.35, top_k=7, max_tokens=33, stop_strings="END\\n", seed=7)
    linking.page.locator("#model").select_option("hf-safetensors")
    link = copied_link(linking)

    other = sit_at(server, link)
    expect(other.status).to_have_text(re.compile("Opened from a link"))
    assert other.text == prompt
    for name in ("temperature", "top-k", "top-p", "min-p", "max-tokens", "stop-strings", "seed", "model"):
        assert other.page.locator(f"#{name}").input_value() == linking.page.locator(f"#{name}").input_value(), name
    assert "#" not in other.page.url  # lest a reload throw away what was written since


def test_a_link_carries_the_prompt_and_not_what_the_model_wrote(linking, sit_at, server):
    linking.type("Once upon a time")
    linking.generate()
    assert sit_at(server, copied_link(linking)).text == "Once upon a time"


def test_the_same_link_writes_the_same_text(linking, sit_at, server):
    linking.set(seed=12, max_tokens=15)
    linking.type("Once upon a time")
    linking.generate()
    other = sit_at(server, copied_link(linking))
    other.generate()
    assert other.text == linking.text


def test_a_link_leaves_the_open_document_in_the_history(linking):
    linking.type("Not to be lost")
    linking.page.goto("#prompt=From a link")
    expect(linking.document).to_have_text("From a link")
    linking.page.get_by_role("button", name="History").click()
    expect(linking.page.locator("#history-list")).to_contain_text("Not to be lost")


def test_settings_in_a_link_that_make_no_sense_are_named_and_left_out(sit_at, server):
    desk = sit_at(server, "#prompt=Hello&temperature=hot&top_p=7&top_k=9&seed=1e400")
    expect(desk.status).to_have_text(
        re.compile("left out: top_p, temperature, seed|left out: temperature, top_p, seed")
    )
    assert (desk.text, desk.page.locator("#top-k").input_value()) == ("Hello", "9")
    assert desk.page.locator("#temperature").input_value() == "0.8"


def test_what_a_link_holds_stays_text(sit_at, server):
    desk = sit_at(server, f"#prompt={HOSTILE}&model={HOSTILE}&temperature={HOSTILE}")
    assert desk.text == HOSTILE
    assert (desk.page.locator("img").count(), desk.page.title()) == (0, "Write · gpt2kit")


def test_a_text_that_is_too_long_for_a_link_is_told(desk):
    desk.document.focus()
    desk.page.keyboard.insert_text("word " * 2000)
    desk.page.get_by_role("button", name="Link with prompt and settings").click()
    expect(desk.status).to_have_text(re.compile("The text is too long for a link"))


def test_a_link_without_stop_strings_or_a_lock_takes_those_away(linking):
    linking.page.goto("#prompt=Hi&temperature=0.5")
    link = copied_link(linking)
    linking.set(stop_strings="END", seed=5)
    linking.page.goto(link)
    expect(linking.page.locator("#stop-strings")).to_have_value("")
    expect(linking.page.locator("#seed-lock")).to_have_attribute("aria-pressed", "false")


def test_over_plain_http_from_another_machine_text_is_copied_all_the_same(desk):
    desk.page.add_init_script(NO_CLIPBOARD)
    desk.page.reload()
    desk.type("Once more. ")
    desk.page.get_by_role("button", name="Copy the whole text").click()
    expect(desk.status).to_have_text("Text copied.")
    desk.document.focus()
    desk.press("Control+End", "Control+v")
    assert desk.text == "Once more. Once more. "


def test_where_nothing_can_be_copied_the_link_is_shown_selected(desk):
    desk.page.add_init_script(NO_CLIPBOARD + "Document.prototype.execCommand = () => false;")
    desk.page.reload()
    desk.type("Hello")
    desk.page.get_by_role("button", name="Link with prompt and settings").click()
    expect(desk.page.get_by_role("dialog")).to_be_visible()
    assert re.search(r"#prompt=Hello&", desk.page.evaluate("getSelection().toString()"))


def test_copy_gives_the_whole_text(linking):
    linking.type("Once upon a time\n")
    linking.generate()
    linking.page.get_by_role("button", name="Copy the whole text").click()
    expect(linking.status).to_have_text("Text copied.")
    assert linking.page.evaluate("navigator.clipboard.readText()") == linking.text


def test_a_new_document_forgets_what_was_said_of_the_old_one(linking):
    linking.type("Once upon a time")
    linking.page.get_by_role("button", name="Copy the whole text").click()
    expect(linking.status).to_have_text("Text copied.")
    linking.page.get_by_role("button", name="New document").click()
    expect(linking.status).to_have_text("")
