"""The sampling panel, and the meter that says how much of the text the model reads."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

NUMBERS = ["max-tokens", "temperature", "top-k", "top-p", "min-p", "repetition-penalty"]


@pytest.fixture
def panel(sit_at, server):
    """A desk whose sampling panel is as it is at first."""
    return sit_at(server)


def box(desk, name):
    return desk.page.locator(f"#{name}")


def boxes(desk, names=NUMBERS):
    return {name: float(box(desk, name).input_value()) for name in names}


def asked(desk, names=NUMBERS):
    """The settings of the newest request."""
    return {name: desk.requests[-1][name.replace("-", "_")] for name in names}


def preset(desk, name):
    return desk.page.locator("#presets").get_by_role("button", name=name)


def problem(desk, name):
    return desk.page.locator(f"#{name}-error")


def test_the_panel_is_open_beside_the_text_where_there_is_room_and_can_be_closed(panel):
    expect(panel.page.locator("#settings-panel")).to_be_visible()
    panel.page.locator("#settings").click()
    expect(panel.page.locator("#settings-panel")).to_be_hidden()
    panel.page.locator("#settings").click()
    expect(box(panel, "temperature")).to_be_visible()


def test_a_preset_sets_values_which_the_request_has(panel):
    panel.set(max_tokens=3)
    for name in ("Precise", "Balanced", "Wild", "Greedy"):
        panel.set(temperature=0.33)
        preset(panel, name).click()
        expect(preset(panel, name)).to_have_attribute("aria-pressed", "true")
        assert boxes(panel)["temperature"] != 0.33
        assert boxes(panel)["max-tokens"] == 3
        panel.generate()
        assert asked(panel) == boxes(panel)


def test_presets_go_from_greedy_to_wild(panel):
    temperatures = []
    for name in ("Greedy", "Precise", "Balanced", "Wild"):
        preset(panel, name).click()
        temperatures.append(boxes(panel)["temperature"])
    assert temperatures[0] == 0
    assert temperatures == sorted(set(temperatures))


def test_greedy_writes_the_likeliest_text(panel):
    preset(panel, "Greedy").click()
    panel.set(max_tokens=30)
    panel.generate()
    assert panel.text == panel.ask(prompt="", temperature=0, max_tokens=30)["choices"][0]["text"]


def test_values_of_ones_own_are_no_preset(panel):
    preset(panel, "Wild").click()
    panel.set(temperature=0.77)
    for button in panel.page.locator("#presets button").all():
        expect(button).to_have_attribute("aria-pressed", "false")


def test_a_box_follows_its_slider_and_the_slider_its_box(panel):
    for name in NUMBERS:
        slider = box(panel, f"{name}-slider")
        low, step = float(slider.get_attribute("min")), float(slider.get_attribute("step"))
        slider.focus()
        panel.press("Home", "ArrowRight", "ArrowRight")
        assert boxes(panel)[name] == float(slider.input_value()) == pytest.approx(low + 2 * step)
        box(panel, name).fill(f"{low + step:g}")
        assert float(slider.input_value()) == pytest.approx(low + step)


def test_a_box_may_go_beyond_its_slider(sit_at, dictate):
    desk = sit_at(dictate("short"))
    desk.set(max_tokens=700, temperature=3, top_k=1)
    desk.generate()
    assert asked(desk, ["max-tokens", "temperature"]) == {"max-tokens": 700, "temperature": 3}


def test_a_wrong_value_is_told_at_its_box_and_not_sent(panel):
    expect(panel.page.locator("#meter-text")).not_to_be_empty()  # the server has told its limits
    for name, value, said in [
        ("temperature", "-0.5", "0 is the least"),
        ("temperature", "", "A number is needed"),
        ("top-p", "1.5", "1 is the most"),
        ("top-k", "2.5", "whole number"),
        ("max-tokens", "0", "1 is the least"),
        ("max-tokens", "20000", "16384 is the most"),  # the server's limit
        ("repetition-penalty", "0", "is the least"),
        ("seed", "abc", "whole number"),
        ("seed", "-3", "whole number"),
    ]:
        right = box(panel, name).input_value()
        box(panel, name).fill(value)
        expect(problem(panel, name)).to_contain_text(said)
        expect(box(panel, name)).to_have_attribute("aria-invalid", "true")
        box(panel, name).fill(right)
        expect(problem(panel, name)).to_be_empty()
    assert panel.requests == []


def test_who_generates_with_a_wrong_value_is_led_to_it_and_nothing_is_sent(panel):
    panel.set(top_p=7)
    panel.page.locator("#settings-close").click()
    panel.go.click()
    expect(panel.status).to_contain_text("setting is wrong")
    expect(box(panel, "top-p")).to_be_focused()
    assert panel.requests == []


def test_a_wrong_value_put_right_is_told_no_more(panel):
    box(panel, "temperature").fill("-1")
    box(panel, "temperature").fill("0.5")
    expect(problem(panel, "temperature")).to_be_empty()
    panel.generate()
    assert asked(panel, ["temperature"]) == {"temperature": 0.5}


def test_without_the_lock_every_text_has_a_fresh_seed(panel):
    expect(box(panel, "seed-lock")).to_have_attribute("aria-pressed", "false")
    panel.set(max_tokens=5)
    for _ in range(3):
        panel.generate()
        expect(box(panel, "seed")).to_have_value(str(panel.requests[-1]["seed"]))
    assert len({request["seed"] for request in panel.requests}) == 3


def test_a_locked_seed_is_used_again(panel):
    panel.set(max_tokens=20)
    panel.generate()
    box(panel, "seed-lock").click()
    expect(box(panel, "seed-lock")).to_have_attribute("aria-pressed", "true")
    first = panel.text
    panel.page.locator("#undo").click()
    panel.generate()
    assert panel.text == first
    assert panel.requests[0]["seed"] == panel.requests[1]["seed"]
    box(panel, "seed-lock").click()
    panel.generate()
    assert panel.requests[2]["seed"] != panel.requests[1]["seed"]


def test_a_seed_that_is_typed_is_locked_and_used(panel):
    panel.set(seed=7, max_tokens=5)
    expect(box(panel, "seed-lock")).to_have_attribute("aria-pressed", "true")
    panel.generate()
    panel.generate()
    assert [request["seed"] for request in panel.requests] == [7, 7]
    box(panel, "seed").fill("")
    expect(box(panel, "seed-lock")).to_have_attribute("aria-pressed", "false")
    panel.generate()
    assert panel.requests[-1]["seed"] != 7


def test_another_try_with_a_locked_seed_says_that_it_is_the_same(panel):
    panel.set(seed=7)
    panel.generate()
    first = panel.text
    panel.press("Control+r")
    expect(panel.status).to_contain_text("seed is locked")
    assert panel.text == first
    assert len(panel.requests) == 1


def test_the_text_ends_before_a_stop_string(sit_at, dictate):
    desk = sit_at(dictate("one two\nthree"))
    for stop, left in [
        ("two", "one "),
        ("zwei\nthree", "one two\n"),
        ("\\n", "one two"),
        ("four", "one two\nthree"),
    ]:
        desk.page.locator("#new").click()
        desk.set(temperature=0, stop_strings=stop)
        desk.generate()
        assert desk.text == left
        expect(desk.figures).to_contain_text("the text ended")


def test_no_more_tokens_are_written_than_asked_for(sit_at, dictate):
    desk = sit_at(dictate("abcdefghi" * 10))
    for count, said in [(1, "1 token"), (2, "2 tokens"), (9, "9 tokens")]:
        desk.page.locator("#new").click()
        desk.set(temperature=0, max_tokens=count)
        desk.generate()
        assert desk.text == "abcdefghi"[:count]
        expect(desk.figures).to_contain_text(said)
        expect(desk.figures).to_contain_text("reached max tokens")


def test_each_setting_can_be_reset(panel):
    for name in NUMBERS:
        first = box(panel, name).input_value()
        reset = box(panel, f"{name}-reset")
        expect(reset).to_be_hidden()
        box(panel, name).fill("0.5" if float(first) == 1 else "1")
        reset.click()
        expect(box(panel, name)).to_have_value(first)
        expect(box(panel, f"{name}-slider")).to_have_value(first)
        expect(reset).to_be_hidden()


def test_all_settings_can_be_reset_at_once_wrong_ones_too(panel):
    first = boxes(panel)
    panel.set(temperature=1.5, top_k=-4, top_p=0.5, max_tokens=3, seed=5, stop_strings="x")
    panel.page.get_by_role("button", name="Reset all").click()
    assert boxes(panel) == first
    expect(box(panel, "seed")).to_have_value("")
    expect(box(panel, "stop-strings")).to_have_value("")
    expect(problem(panel, "top-k")).to_be_empty()
    panel.generate()
    assert asked(panel) == first
    assert "stop" not in panel.requests[0]


# ---- the meter ----


def count(desk, text, model):
    return desk.ask("tokenize", prompt=text, model=model, parse_special=False)["count"]


def test_the_meter_counts_tokens_as_the_tokenizer_does(panel):
    for text in ("Once upon a time", "床前明月光 🙂\n", "a" * 300, "<|endoftext|>"):
        panel.page.locator("#new").click()
        panel.page.keyboard.insert_text(text)
        expect(panel.page.locator("#meter-text")).to_have_text(f"{count(panel, text, 'roomy')} / 512 tokens")


def test_the_meter_counts_what_the_model_would_read_at_the_caret(panel):
    panel.type("Once upon a time there was")
    panel.caret_at(len("Once upon"))
    expect(panel.page.locator("#meter-text")).to_have_text(f"{count(panel, 'Once upon', 'roomy')} / 512 tokens")


def test_the_meter_follows_what_the_model_writes(desk):
    desk.type("Once")
    desk.generate()
    expect(desk.page.locator("#meter-text")).to_have_text(f"{count(desk, desk.text, 'roomy')} / 512 tokens")


@pytest.fixture
def crowded(desk):
    """A desk with more text than the golden model's window of 56 tokens holds; some of it in characters of several."""
    text = "Emoji 🙂 first, 床前明月光. Then there is a long and winding text about nothing at all, really nothing."
    desk.page.locator("#model").select_option("hf-safetensors")
    desk.document.focus()
    desk.page.keyboard.insert_text(text)
    tokenized = desk.ask("tokenize", prompt=text, model="hf-safetensors", return_offsets=True)
    desk.tokenized, desk.too_many = tokenized["tokens"], tokenized["count"] - 56
    assert desk.too_many > 0
    desk.unread = text[: tokenized["offsets"][desk.too_many]]
    return desk


def test_text_that_does_not_fit_is_counted_and_greyed(crowded):
    said = f"{len(crowded.tokenized)} / 56 tokens, the oldest {crowded.too_many} will not be read"
    expect(crowded.page.locator("#meter-text")).to_have_text(said)
    grey = crowded.page.locator("#document .dropped")
    expect(grey).to_have_text(crowded.unread)
    assert grey.evaluate("e => getComputedStyle(e).color") != "rgb(29, 27, 24)"


def test_what_is_greyed_is_what_the_model_does_not_read(crowded):
    before = crowded.text
    crowded.generate()
    read = crowded.tokenized[-56:]
    written = crowded.ask(prompt=read, model="hf-safetensors", temperature=0, max_tokens=20)["choices"][0]["text"]
    assert crowded.text == before + written


def test_greyed_text_is_still_the_users_to_edit(crowded):
    expect(crowded.page.locator("#document .dropped")).to_be_visible()
    text = crowded.text
    crowded.caret_at(3)
    crowded.page.keyboard.type("XX")
    assert crowded.text == text[:3] + "XX" + text[3:]
    crowded.press("Control+a")
    crowded.page.keyboard.type("short")
    expect(crowded.page.locator("#document .dropped")).to_have_count(0)
    assert crowded.text == "short"


def test_with_a_larger_window_nothing_is_greyed(crowded):
    expect(crowded.page.locator("#document .dropped")).to_be_visible()
    crowded.page.locator("#model").select_option("roomy")
    expect(crowded.page.locator("#document .dropped")).to_have_count(0)
    expect(crowded.page.locator("#meter-text")).to_have_text(f"{len(crowded.tokenized)} / 512 tokens")
