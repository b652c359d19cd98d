"""Editing is that of any text field: what is touched becomes the user's own, and everything can be undone."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PARTS = ["t", "he", " s", "he", "e", "p", " and", " the", " h", "ou", "se"]
WRITTEN = "".join(PARTS)


def without(number):
    """The tokens but one."""
    return PARTS[:number] + PARTS[number + 1 :]


@pytest.fixture
def sheep(sit_at, dictate):
    """A desk with "Once " by the user and WRITTEN by the model."""
    desk = sit_at(dictate(WRITTEN))
    desk.set(temperature=0)
    desk.type("Once ")
    desk.generate()
    assert desk.tokens.all_text_contents() == PARTS
    return desk


def paste(desk, **kinds):
    """Pastes as the browser does, from a clipboard that holds text/html, text/plain and so on."""
    desk.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    blobs = {kind.replace("_", "/"): text for kind, text in kinds.items()}
    desk.page.evaluate(
        """async (kinds) => {
          const blobs = Object.entries(kinds).map(([type, text]) => [type, new Blob([text], { type })]);
          await navigator.clipboard.write([new ClipboardItem(Object.fromEntries(blobs))]);
        }""",
        blobs,
    )
    desk.press("Control+v")


def compose(desk, *steps, commit):
    """Types with an input method: what it shows on the way, then what is chosen."""
    keyboard = desk.page.context.new_cdp_session(desk.page)
    for step in steps:
        place = {"selectionStart": len(step), "selectionEnd": len(step)}
        keyboard.send("Input.imeSetComposition", {"text": step, **place})
    keyboard.send("Input.insertText", {"text": commit})


def test_typing_inside_a_token_makes_that_token_the_users(sheep):
    sheep.caret_at(len("Once the sheep a"))
    sheep.page.keyboard.type("xx")
    assert sheep.text == "Once the sheep axxnd the house"
    assert sheep.tokens.all_text_contents() == without(6)


def test_typing_between_two_tokens_touches_neither(sheep):
    sheep.caret_at(len("Once the sheep"))
    sheep.page.keyboard.type("!")
    assert sheep.text == "Once the sheep! and the house"
    assert sheep.model_text == WRITTEN


def test_deleting_a_part_of_a_token_makes_the_rest_of_it_the_users(sheep):
    sheep.caret_at(len("Once the"))
    sheep.press("Backspace")
    assert sheep.text == "Once th sheep and the house"
    assert sheep.tokens.all_text_contents() == without(1)


def test_a_selection_over_several_tokens_is_replaced_as_a_whole(sheep):
    sheep.caret_at(len("Once the "))
    sheep.press(*["Shift+ArrowRight"] * len("sheep an"))
    sheep.page.keyboard.type("X")
    assert sheep.text == "Once the Xd the house"
    assert sheep.tokens.all_text_contents() == ["t", "he", " the", " h", "ou", "se"]


def test_a_word_is_deleted_at_once_as_the_system_does(sheep):
    sheep.caret_at(len("Once the sheep and"))
    sheep.press("Control+Backspace")
    assert sheep.text == "Once the sheep  the house"
    assert sheep.tokens.all_text_contents() == without(6)


def test_what_was_edited_is_read_by_the_model_as_it_stands(sheep):
    sheep.caret_at(len("Once the "))
    sheep.page.keyboard.type("black ")
    sheep.press("Control+End", "Control+Enter")
    expect(sheep.status).to_have_text("Done.")
    assert sheep.requests[-1]["prompt"] == "Once the black sheep and the house"


def test_all_of_it_can_be_selected_and_deleted(sheep):
    sheep.document.focus()
    sheep.press("Control+a", "Delete")
    assert sheep.text == ""
    expect(sheep.tokens).to_have_count(0)
    sheep.page.keyboard.type("Anew")
    assert sheep.text == "Anew"


def test_cut_and_paste_move_text_which_becomes_the_users(sheep):
    sheep.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sheep.caret_at(len("Once "))
    sheep.press(*["Shift+ArrowRight"] * len("the sheep"), "Control+x")
    assert sheep.text == "Once  and the house"
    sheep.press("Control+End", "Control+v")
    assert sheep.text == "Once  and the housethe sheep"
    assert sheep.model_text == " and the house"


def test_pasted_html_is_pasted_as_plain_text(desk):
    desk.type("Before ")
    paste(desk, text_html="<b>bold</b> <a href='https://example.org'>link</a>", text_plain="bold link")
    assert desk.text == "Before bold link"
    expect(desk.document.locator("*")).to_have_count(0)


def test_pasted_lines_keep_their_breaks_whatever_system_they_come_from(desk):
    desk.document.focus()
    paste(desk, text_plain="one\r\ntwo\n\nthree\n")
    desk.page.keyboard.type("four")
    assert desk.text == "one\ntwo\n\nthree\nfour"
    assert desk.document.inner_text() == "one\ntwo\n\nthree\nfour"


def test_text_pasted_into_the_models_becomes_the_users(sheep):
    sheep.caret_at(len("Once the sh"))
    paste(sheep, text_html="<i>REAL </i>", text_plain="REAL ")
    assert sheep.text == "Once the shREAL eep and the house"
    assert sheep.tokens.all_text_contents() == without(3)


def test_an_input_method_types_chinese(desk):
    desk.type("Li Bai: ")
    compose(desk, "c", "ch", "chuang", commit="床前")
    assert desk.text == "Li Bai: 床前"
    compose(desk, "m", "ming", commit="明月")
    desk.page.keyboard.type(".")
    assert desk.text == "Li Bai: 床前明月."
    expect(desk.document.locator("*")).to_have_count(0)


def test_an_input_method_types_into_the_models_text(sheep):
    sheep.caret_at(len("Once the sh"))
    compose(sheep, "y", "yang", commit="羊")
    sheep.page.keyboard.type("!")
    assert sheep.text == "Once the sh羊!eep and the house"
    assert sheep.tokens.all_text_contents() == without(3)
    sheep.press("Control+z")
    assert sheep.text in ("Once the sh羊eep and the house", "Once the sheep and the house")


def test_a_composition_given_up_leaves_the_text_as_it_was(sheep):
    sheep.caret_at(len("Once the"))
    compose(sheep, "y", "yang", "", commit="")
    assert sheep.text == "Once the sheep and the house"


def test_an_emoji_is_deleted_whole(desk):
    desk.document.focus()
    desk.page.keyboard.insert_text("a🙂b👩‍🚀")
    desk.press("Backspace")
    assert desk.text == "a🙂b"
    desk.press("ArrowLeft", "Backspace")
    assert desk.text == "ab"


def test_undo_goes_back_over_typing_and_generations_and_redo_forth(desk):
    desk.type("One")
    desk.generate()
    one = desk.text
    desk.type(" two")
    two = desk.text
    desk.generate()
    three = desk.text
    for keys, expected in [
        ("Control+z", two), ("Control+z", one), ("Control+z", "One"), ("Control+z", ""), ("Control+z", ""),
        ("Control+Shift+z", "One"), ("Control+y", one), ("Control+Shift+z", two), ("Control+Shift+z", three),
        ("Control+Shift+z", three),
    ]:  # fmt: skip
        desk.press(keys)
        assert desk.text == expected
    assert " two" not in desk.model_text
    assert three == "One" + desk.model_text[: len(one) - 3] + " two" + desk.model_text[len(one) - 3 :]


def test_the_buttons_undo_and_redo_too_and_are_dead_where_there_is_nothing(desk):
    undo, redo = desk.page.locator("#undo"), desk.page.locator("#redo")
    expect(undo).to_be_disabled()
    desk.type("One")
    undo.click()
    assert desk.text == ""
    expect(undo).to_be_disabled()
    redo.click()
    assert desk.text == "One"
    expect(redo).to_be_disabled()


def test_what_was_undone_is_gone_once_something_else_is_typed(desk):
    desk.type("One")
    desk.generate()
    desk.page.locator("#undo").click()
    desk.type("!")
    expect(desk.page.locator("#redo")).to_be_disabled()
    desk.press("Control+Shift+z")
    assert desk.text == "One!"


def test_undoing_an_edit_makes_the_models_text_red_again(sheep):
    sheep.caret_at(len("Once the sh"))
    sheep.page.keyboard.type("X")
    assert sheep.model_text != WRITTEN
    sheep.press("Control+z")
    assert sheep.text == "Once " + WRITTEN == "Once " + sheep.model_text


def test_undo_while_the_model_writes_stops_it(sit_at, dictate):
    desk = sit_at(dictate("on and on " * 50, seconds=0.05))
    desk.set(temperature=0)
    desk.type("It goes ")
    desk.go.click()
    expect(desk.tokens.nth(2)).to_be_attached()
    desk.document.focus()
    desk.press("Control+z")
    expect(desk.go).to_have_text("Generate")
    assert desk.text == "It goes "
    desk.press("Control+Shift+z")
    assert desk.text.startswith("It goes on")


def test_after_undo_typing_goes_on_where_the_caret_was(desk):
    desk.type("One")
    desk.generate()
    desk.document.focus()
    desk.press("Control+z")
    desk.page.keyboard.type(" more")
    assert desk.text == "One more"


def test_a_long_document_can_be_typed_into_at_both_ends_and_in_the_middle(desk):
    sentence = "All work and no play makes Jack a dull boy.\n"
    desk.document.focus()
    desk.page.keyboard.insert_text(sentence * 460)  # 20,240 characters
    desk.page.keyboard.type("end")
    desk.press("Control+Home")
    desk.page.keyboard.type("begin")
    desk.press("ArrowDown", "Home")
    desk.page.keyboard.type("middle")
    assert desk.text == "begin" + sentence + "middle" + sentence * 459 + "end"


# --- while the model writes, or is about to ---


def test_an_edit_while_another_try_is_awaited_is_made_where_the_caret_is(sit_at, dictate):
    server = dictate("the sheep")
    desk = sit_at(server)
    desk.set(temperature=0)
    desk.type("Once END")
    desk.press(*["ArrowLeft"] * 3)
    desk.generate(lambda: desk.press("Control+Enter"))
    assert desk.text == "Once the sheepEND"
    server.pace.gate.clear()
    desk.press("Control+r")
    expect(desk.go).to_have_text("Stop")
    desk.press("End", "Backspace")
    server.pace.gate.set()
    assert desk.text == "Once EN"


def test_the_caret_stays_where_it_was_put_while_the_model_writes_before_it(sit_at, dictate):
    desk = sit_at(dictate("on and on " * 20, seconds=0.03))
    desk.set(temperature=0)
    desk.type("It goes END")
    desk.press(*["ArrowLeft"] * 3, "Control+Enter")
    expect(desk.tokens.nth(2)).to_be_attached()
    desk.press("End")
    expect(desk.tokens.nth(12)).to_be_attached()
    desk.page.keyboard.type("!")
    assert desk.text.endswith("END!")


def test_undo_while_the_first_token_is_awaited_takes_back_the_generation_only(sit_at, dictate):
    server = dictate("the sheep")
    desk = sit_at(server)
    desk.type("First words")
    server.pace.gate.clear()
    desk.press("Control+Enter")
    expect(desk.go).to_have_text("Stop")
    desk.press("Control+z")
    expect(desk.go).to_have_text("Generate")
    server.pace.gate.set()
    assert desk.text == "First words"


def test_an_input_method_beside_a_blank_that_does_not_break_leaves_the_models_text_red(sit_at, dictate):
    desk = sit_at(dictate("the\u00a0sheep"))
    desk.set(temperature=0)
    desk.type("Once ")
    desk.generate()
    compose(desk, "y", "yang", commit="羊")
    assert (desk.text, desk.model_text) == ("Once the\u00a0sheep羊", "the\u00a0sheep")


def test_what_was_typed_anew_stays_black_when_the_model_goes_on_from_the_same_text(sheep):
    sheep.press("Control+a", "Delete")
    sheep.set(max_tokens=3)
    sheep.type("Once ")
    sheep.generate(lambda: sheep.press("Control+Enter"))
    sheep.generate(lambda: sheep.press("Control+Enter"))
    assert sheep.model_text == "the sthe s"
    sheep.press("Control+z", "Backspace")
    sheep.page.keyboard.type("s")
    sheep.generate(lambda: sheep.press("Control+Enter"))
    assert (sheep.text, sheep.model_text) == ("Once the sthe s", "thethe s")
