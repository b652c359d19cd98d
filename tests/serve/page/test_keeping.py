"""Documents outlive a reload, travel as files, and are never lost without a word."""

import json
import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
NO_STORAGE = """
for (const name of ["localStorage", "sessionStorage"]) {
  Object.defineProperty(window, name, { get() { throw new DOMException("not allowed", "SecurityError"); } });
}
"""
FILL = """room => {
  localStorage.setItem("room", "x".repeat(room));
  for (let size = 1 << 23; size >= 1; size >>= 1) {
    try { localStorage.setItem(`junk${size}`, "x".repeat(size)); } catch { continue; }
  }
  localStorage.removeItem("room");
}"""
KEEP = "dispatchEvent(new Event('pagehide'))"  # at once, not after a pause


@pytest.fixture
def written(desk):
    """A desk with a text of both colours."""
    desk.type("Once upon a time")
    desk.generate()
    return desk


def panel(desk):
    """The history, opened."""
    desk.page.get_by_role("button", name="History").click()
    found = desk.page.get_by_role("dialog", name="History")
    expect(found).to_be_visible()
    return found


def names(dialog):
    return dialog.locator("#history-list .name").all_inner_texts()


def exported(desk, kind, path):
    with desk.page.expect_download() as download:
        panel(desk).get_by_role("button", name=f"Export .{kind}").click()
    desk.press("Escape")
    download.value.save_as(path)
    return download.value.suggested_filename


def given(desk, path):
    """Imports a file."""
    dialog = panel(desk)
    with desk.page.expect_file_chooser() as chooser:
        dialog.get_by_role("button", name="Import").click()
    chooser.value.set_files(path)
    return dialog


# --- in this browser ---


def test_a_reload_brings_back_the_text_and_its_colours(written):
    text, models = written.text, written.model_text
    written.page.reload()
    expect(written.document).to_have_text(text, use_inner_text=False)
    assert (written.text, written.model_text) == (text, models)


def test_what_was_typed_a_moment_before_leaving_is_kept(desk):
    desk.type("Gone in a moment")
    desk.page.reload()
    expect(desk.document).to_have_text("Gone in a moment")


def test_settings_outlive_a_reload(desk):
    desk.set(temperature=0.35, stop_strings="END", seed=7)
    desk.page.reload()
    values = [desk.page.locator(f"#{name}").input_value() for name in ("temperature", "stop-strings", "seed")]
    assert values == ["0.35", "END", "7"]


def test_the_tokens_of_a_kept_text_still_know_their_alternatives(written):
    written.tokens.nth(2).click()
    before = written.popover.inner_text()
    written.page.reload()
    written.tokens.nth(2).click()
    assert written.popover.inner_text() == before


def test_leaving_while_the_model_writes_is_asked_about(dictate, sit_at):
    desk = sit_at(dictate("The cat sat on the mat. " * 10, seconds=0.05))
    asked = []
    desk.page.on("dialog", lambda dialog: asked.append(dialog.type))
    desk.type("The cat")
    desk.go.click()
    expect(desk.tokens.nth(2)).to_be_visible()
    desk.page.reload()
    assert asked == ["beforeunload"]
    assert desk.text.startswith("The cat")
    assert len(desk.text) > len("The cat")


# --- the history ---


def test_the_history_names_documents_by_their_first_words_newest_first(desk):
    for text in ("The first of them", "The second\nof them"):
        desk.page.get_by_role("button", name="New document").click()
        desk.type(text)
    assert names(panel(desk)) == ["The second of them", "The first of them"]


def test_a_document_of_the_history_can_be_opened_again(written):
    text, models = written.text, written.model_text
    written.page.get_by_role("button", name="New document").click()
    assert written.text == ""
    written.type("Another")
    panel(written).get_by_role("button", name="Open Once upon").click()
    assert (written.text, written.model_text) == (text, models)


def test_a_deleted_document_can_be_brought_back_until_the_history_is_closed(written):
    text = written.text
    dialog = panel(written)
    dialog.get_by_role("button", name="Delete Once upon").click()
    assert written.text == ""
    dialog.get_by_role("button", name="Bring it back").click()
    dialog.get_by_role("button", name="Open Once upon").click()
    assert written.text == text


def test_a_deleted_document_stays_away(written):
    dialog = panel(written)
    dialog.get_by_role("button", name="Delete Once upon").click()
    written.page.reload()
    expect(written.document).to_have_text("")
    expect(panel(written)).to_contain_text("Nothing is kept yet.")


# --- files ---


def test_the_exported_text_is_the_text(written, tmp_path):
    name = exported(written, "txt", tmp_path / "text")
    assert (tmp_path / "text").read_text("utf-8") == written.text
    assert re.fullmatch(r"Once upon a time.*\.txt", name)


def test_an_exported_file_has_a_name_that_every_system_takes(desk, tmp_path):
    desk.type('..What?  "Now:\tor never",\nhe said...')
    assert exported(desk, "txt", tmp_path / "text") == "What Now or never , he said.txt"


def test_an_exported_document_is_the_same_on_another_computer(written, sit_at, server, tmp_path):
    exported(written, "json", tmp_path / "story.json")
    written.tokens.nth(2).click()
    other = sit_at(server)
    given(other, tmp_path / "story.json")
    expect(other.status).to_have_text("Imported as a new document.")
    assert (other.text, other.model_text) == (written.text, written.model_text)
    other.tokens.nth(2).click()
    assert other.popover.inner_text() == written.popover.inner_text()


def test_an_import_leaves_the_open_document_in_the_history(written, tmp_path):
    exported(written, "json", tmp_path / "story.json")
    written.page.get_by_role("button", name="New document").click()
    written.type("Not to be lost")
    given(written, tmp_path / "story.json")
    expect(written.status).to_have_text("Imported as a new document.")
    assert "Not to be lost" in names(panel(written))


BROKEN = {
    "no JSON": ("{", "JSON"),
    "something else": ('{"a": 1}', '"format" is not'),
    "of the future": ('{"format": "gpt2kit-document", "version": 2}', '"version" is 2, expected 1'),
    "without runs": ('{"format": "gpt2kit-document", "version": 1}', "runs must be a list"),
    "with strange runs": ('{"format": "gpt2kit-document", "version": 1, "runs": [7]}', "a run must be"),
    "with strange tokens": (
        '{"format": "gpt2kit-document", "version": 1, "runs": [{"t": "a", "k": [["1"]]}]}',
        "a token",
    ),
}


@pytest.mark.parametrize(("content", "told"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_document_is_told_in_place_and_nothing_is_lost(desk, tmp_path, content, told):
    (tmp_path / "strange.json").write_text(content, encoding="utf-8")
    desk.type("Not to be lost")
    dialog = given(desk, tmp_path / "strange.json")
    alert = dialog.get_by_role("alert")
    expect(alert).to_contain_text("strange.json is not a document exported by this page: ")
    expect(alert).to_contain_text(told)
    assert (desk.text, names(dialog)) == ("Not to be lost", ["Not to be lost"])


def test_what_a_strangers_file_holds_stays_text(desk, tmp_path):
    token = [7, -0.5, 1.0, [[7, HOSTILE, -0.5], [8, f"</li>{HOSTILE}", -1.5]]]
    story = {"format": "gpt2kit-document", "version": 1, "name": HOSTILE, "saved": 1, "model": HOSTILE}
    runs = [HOSTILE, {"t": HOSTILE, "k": [token]}]
    (tmp_path / "hostile.json").write_text(json.dumps(story | {"runs": runs}), encoding="utf-8")
    given(desk, tmp_path / "hostile.json")
    expect(desk.status).to_have_text("Imported as a new document.")
    assert desk.text == HOSTILE * 2
    desk.tokens.first.click()
    expect(desk.popover).to_contain_text(HOSTILE)
    expect(panel(desk)).to_contain_text("<img src=x")
    assert (desk.page.locator("img").count(), desk.page.title()) == (0, "Write · gpt2kit")


# --- a browser that keeps little, or nothing ---


def test_a_full_storage_is_told_while_the_text_is_still_there(desk):
    desk.page.evaluate(FILL, 0)
    desk.type("No room for this")
    expect(desk.status).to_have_text(re.compile("The browser's storage is full: this document is not kept"))
    assert desk.text == "No room for this"
    desk.status.get_by_role("button", name="History").click()
    expect(desk.page.get_by_role("dialog", name="History")).to_be_visible()


def test_where_there_is_little_room_the_text_is_kept_without_its_alternatives(written):
    text, models = written.text, written.model_text
    written.page.evaluate(KEEP)
    written.page.evaluate(FILL, 0)
    written.type(" and")
    expect(written.status).to_have_text(re.compile("storage is nearly full"))
    written.page.reload()
    expect(written.document).to_have_text(f"{text} and")
    assert written.model_text == models
    written.tokens.first.click()
    expect(written.popover).to_contain_text("No probabilities are kept")


def test_a_full_storage_is_told_after_an_import_too(written, tmp_path):
    exported(written, "json", tmp_path / "story.json")
    written.page.evaluate(FILL, 0)
    given(written, tmp_path / "story.json")
    expect(written.status).to_have_text(re.compile("The browser's storage is full"))


def test_a_browser_that_keeps_nothing_can_still_be_written_in(desk):
    desk.page.add_init_script(NO_STORAGE)
    desk.page.reload()
    expect(desk.page.locator("#model option").first).to_be_attached()
    desk.set(temperature=0, max_tokens=10)
    desk.type("Hello")
    expect(desk.status).to_have_text(re.compile("The browser keeps nothing for this page"))
    desk.generate()
    assert desk.model_text != ""
    expect(panel(desk)).to_contain_text("Nothing is kept yet.")


# --- two tabs ---


def test_two_tabs_do_not_destroy_each_others_text(desk):
    desk.type("Once")
    expect(desk.page.locator("#meter-text")).to_have_text(re.compile("^[1-9]"))
    desk.page.evaluate("dispatchEvent(new Event('pagehide'))")  # keeps what is open
    other = desk.page.context.new_page()
    other.goto("")
    expect(other.locator("#document")).to_have_text("Once")

    desk.page.bring_to_front()
    desk.type(" upon a time")
    desk.page.evaluate("dispatchEvent(new Event('pagehide'))")
    other.bring_to_front()
    other.locator("#document").click()
    other.keyboard.press("Control+End")
    other.keyboard.type(" more")
    expect(other.locator("#status")).to_have_text(re.compile("open in another tab as well"))

    assert sorted(names(panel(desk))) == ["Once more", "Once upon a time"]


def test_a_new_tab_begins_with_the_newest_text_and_writes_its_own(desk):
    desk.type("First")
    other = desk.page.context.new_page()
    other.goto("")
    other.get_by_role("button", name="New document").click()
    other.keyboard.type("Second")
    other.close(run_before_unload=True)
    desk.type(" and last")
    assert sorted(names(panel(desk))) == ["First and last", "Second"]


@pytest.mark.parametrize("told_before", [False, True])
def test_a_storage_that_is_full_is_still_told_of_when_the_model_has_written(dictate, sit_at, told_before):
    server = dictate("on and on " * 50, seconds=0.05)
    desk = sit_at(server)
    desk.set(max_tokens=300)
    desk.page.evaluate(FILL, 0)
    desk.type("It goes ")
    if told_before:
        desk.page.evaluate(KEEP)
        expect(desk.status).to_have_text(re.compile("storage is full"))
    desk.go.click()
    expect(desk.tokens.nth(20)).to_be_attached()
    server.pace.seconds = 0
    expect(desk.status).to_have_text(re.compile("storage is full"))
