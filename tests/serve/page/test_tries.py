"""Another try, three side by side, and every older one within reach."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PROMPT = "Once upon a time"


@pytest.fixture
def dicing(desk):
    """A desk with PROMPT, where every try is another text."""
    desk.set(temperature=1)
    desk.type(PROMPT)
    return desk


@pytest.fixture
def three(dicing):
    """Three alternatives, written and not chosen from; the texts are `three.texts`, by the API."""
    dicing.set(seed=5)
    dicing.page.locator("#count button[value='3']").click()
    dicing.generate()
    answer = dicing.ask(prompt=PROMPT, n=3, seed=5, max_tokens=20)
    dicing.texts = [choice["text"] for choice in answer["choices"]]
    assert len(set(dicing.texts)) == 3
    dicing.cards = dicing.page.locator(".alternative")
    return dicing


def label(desk):
    return desk.page.locator("#try-label")


def another(desk):
    desk.generate(lambda: desk.press("Control+r"))
    return desk.model_text


def test_three_alternatives_are_the_three_texts_of_the_api_side_by_side(three):
    assert three.cards.locator("p").all_text_contents() == three.texts
    boxes = [card.bounding_box() for card in three.cards.all()]
    assert len({box["y"] for box in boxes}) == 1
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert boxes[1]["x"] + boxes[1]["width"] <= boxes[2]["x"]
    assert three.text == PROMPT


def test_alternatives_are_red_and_underlined_too(three):
    expect(three.cards.locator("p").first).to_have_css("color", "rgb(168, 35, 27)")
    expect(three.cards.locator("p").first).to_have_css("text-decoration-line", "underline")


def test_an_alternative_is_chosen_by_a_click_on_it(three):
    three.cards.nth(1).locator("p").click(position={"x": 5, "y": 5})
    expect(three.cards).to_have_count(0)
    assert three.text == PROMPT + three.texts[1]
    assert three.model_text == three.texts[1]


def test_an_alternative_is_chosen_by_its_button(three):
    three.page.get_by_role("button", name="Take 1").click()
    assert three.text == PROMPT + three.texts[0]


def test_an_alternative_is_chosen_by_its_number_key(three):
    three.press("3")
    expect(three.cards).to_have_count(0)
    assert three.text == PROMPT + three.texts[2]


def test_an_alternative_is_chosen_by_arrow_and_enter(three):
    three.press("ArrowRight", "ArrowRight", "Enter")
    assert three.text == PROMPT + three.texts[1]


def test_long_alternatives_can_be_taken_without_scrolling(sit_at, dictate):
    desk = sit_at(dictate("on and on " * 90))
    desk.set(temperature=0, max_tokens=800)
    desk.document.focus()
    desk.page.keyboard.insert_text("A line of a long text.\n" * 80)
    desk.page.locator("#count button[value='3']").click()
    desk.generate()
    for number in (1, 2, 3):
        expect(desk.page.get_by_role("button", name=f"Take {number}")).to_be_in_viewport(ratio=1)


def test_none_of_the_alternatives_leaves_the_text_as_it_was(three):
    three.page.get_by_role("button", name="None of them").click()
    expect(three.cards).to_have_count(0)
    assert three.text == PROMPT
    three.page.locator("#try-previous").click()
    assert three.text == PROMPT + three.texts[2]


def test_the_alternatives_not_taken_stay_within_reach(three):
    three.press("2")
    expect(label(three)).to_have_text("try 2 of 3")
    three.page.locator("#try-previous").click()
    assert three.text == PROMPT + three.texts[0]
    expect(three.page.locator("#try-previous")).to_be_disabled()
    three.page.locator("#try-next").click()
    three.page.locator("#try-next").click()
    assert three.text == PROMPT + three.texts[2]
    expect(three.page.locator("#try-next")).to_be_disabled()


def test_a_choice_can_be_undone(three):
    three.press("2", "Control+z")
    assert three.text == PROMPT
    three.press("Control+Shift+z")
    assert three.text == PROMPT + three.texts[1]


def test_a_chosen_alternative_is_gone_on_from(three):
    three.press("3")
    three.page.locator("#count button[value='1']").click()
    three.generate()
    assert three.requests[-1]["prompt"] == PROMPT + three.texts[2]


def test_an_alternative_may_be_chosen_while_all_are_still_written(sit_at, dictate):
    desk = sit_at(dictate("on and on " * 10, seconds=0.03))
    desk.set(temperature=0, max_tokens=60)
    desk.page.locator("#count button[value='3']").click()
    desk.go.click()
    expect(desk.page.locator(".alternative p").first).to_contain_text("on and")
    desk.press("2")
    expect(desk.page.locator(".alternative")).to_have_count(0)
    desk.wait()
    assert desk.text == ("on and on " * 10)[: len(desk.text)] != ""


def test_three_alternatives_stop_together_and_keep_their_text(sit_at, dictate):
    server = dictate("on and on " * 50, seconds=0.05)
    desk = sit_at(server)
    desk.set(temperature=0, max_tokens=400)
    desk.page.locator("#count button[value='3']").click()
    desk.go.click()
    expect(desk.page.locator(".alternative p").last).to_contain_text("on and")
    desk.press("Escape")
    server.until(lambda: server.metric("texts_running") == 0)
    desk.press("3")
    assert desk.text == ("on and on " * 50)[: len(desk.text)] != ""


def test_another_try_takes_the_place_of_the_one_before(dicing):
    dicing.generate()
    first, second = dicing.model_text, another(dicing)
    assert first != second
    assert dicing.text == PROMPT + second


def test_older_tries_are_reached_and_kept_after_another_one(dicing):
    dicing.generate()
    tries = [dicing.model_text, another(dicing), another(dicing)]
    back, forth = dicing.page.locator("#try-previous"), dicing.page.locator("#try-next")
    expect(label(dicing)).to_have_text("try 3 of 3")
    back.click()
    back.click()
    assert dicing.text == PROMPT + tries[0]
    tries.append(another(dicing))
    expect(label(dicing)).to_have_text("try 4 of 4")
    seen = [dicing.model_text]
    for _ in range(3):
        back.click()
        seen.append(dicing.model_text)
    assert seen == tries[::-1]
    forth.click()
    assert dicing.model_text == tries[1]


def test_the_keys_below_and_above_turn_to_other_tries(dicing):
    dicing.generate()
    first, second = dicing.model_text, another(dicing)
    dicing.go.focus()
    dicing.press("<")
    assert dicing.model_text == first
    dicing.press(">")
    assert dicing.model_text == second
    dicing.document.focus()
    dicing.press("Control+<")
    assert dicing.text == PROMPT + first


def test_the_signs_below_and_above_can_be_typed(desk):
    desk.type("1 < 2 > 0?")
    assert desk.text == "1 < 2 > 0?"


def test_each_try_has_the_figures_of_its_own(dicing):
    dicing.generate()
    another(dicing)
    seeds = [request["seed"] for request in dicing.requests]
    assert seeds[0] != seeds[1]
    expect(dicing.figures).to_contain_text(f"seed {seeds[1]}")
    dicing.page.locator("#try-previous").click()
    expect(dicing.figures).to_contain_text(f"seed {seeds[0]}")


def test_another_try_in_the_middle_keeps_what_stands_behind(dicing):
    dicing.type("THE END")
    dicing.caret_at(len(PROMPT))
    dicing.page.wait_for_timeout(100)
    dicing.generate(lambda: dicing.press("Control+Enter"))
    first, second = dicing.model_text, another(dicing)
    assert dicing.text == f"{PROMPT}{second}THE END"
    dicing.page.locator("#try-previous").click()
    assert dicing.text == f"{PROMPT}{first}THE END"


def test_tries_come_back_with_the_text_they_belong_to(dicing):
    """Undone to before the generation and generated again: the old try is still one of the tries there."""
    dicing.generate()
    first = dicing.model_text
    dicing.page.locator("#undo").click()
    dicing.generate()
    expect(label(dicing)).to_have_text("try 2 of 2")
    dicing.page.locator("#try-previous").click()
    assert dicing.text == PROMPT + first
