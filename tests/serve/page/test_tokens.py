"""What else the model could have written: each token's alternatives, branching to one of them, shading by entropy."""

import math
import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

WRITTEN = "the sheep and the house"
CHINESE = "床前明月光"


@pytest.fixture
def sheep(sit_at, dictate):
    """A desk with "Once " by the user and WRITTEN by the model, `answer` as the API writes it."""
    return written(sit_at(dictate(WRITTEN)), "Once ", WRITTEN)


@pytest.fixture
def poem(sit_at, dictate):
    """A desk with CHINESE by the model: three tokens for each character."""
    return written(sit_at(dictate(CHINESE)), "", CHINESE)


def written(desk, prompt, text):
    desk.set(temperature=0, top_k=0, top_p=1)
    desk.type(prompt)
    desk.generate()
    assert desk.text == prompt + text
    answer = ask(desk, prompt)
    desk.logprobs, desk.prompt = answer["logprobs"], prompt
    return desk


def ask(desk, prompt, **body):
    fields = {"temperature": 0, "max_tokens": 80, "logprobs": 10, "return_token_ids": True, "return_entropy": True}
    return desk.ask(prompt=prompt, **fields, **body)["choices"][0]


def shown(token):
    """A token's name with its blanks made visible."""
    if token.startswith("bytes:"):
        return "⟨" + token.removeprefix("bytes:").replace("\\x", " ").strip().upper() + "⟩"
    for blank, sign in {"\n": "↵", "\r": "␍", "\t": "⇥"}.items():
        token = token.replace(blank, sign)
    blanks = len(token) - len(token.strip(" "))
    token = token.replace(" ", "␣") if token.strip(" ") == "" else "␣" * blanks + token.strip(" ")
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda sign: f"\\x{ord(sign[0]):02x}", token)


def share(logprob):
    percent = 100 * math.exp(logprob)
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %"


def rows(desk):
    """What the popover lists: names and shares, for each token of the run one list."""
    return [
        list(zip(part.locator(".name").all_text_contents(), part.locator(".share").all_text_contents(), strict=True))
        for part in desk.popover.locator("ul").all()
    ]


def expected(logprobs, number):
    likeliest = sorted(logprobs["top_logprobs"][number].items(), key=lambda entry: -entry[1])
    return [(shown(token), share(logprob)) for token, logprob in likeliest]


def hover(desk, number):
    desk.tokens.nth(number).hover()
    expect(desk.popover).to_be_visible()


def alternative(desk, token, rank):
    """The id of the alternative in that row of a token's list."""
    return desk.logprobs["top_token_ids"][token][rank]


def test_hovering_over_a_token_lists_what_the_api_gives_as_its_likeliest(sheep):
    for number in (0, 2, 6, 10):
        hover(sheep, number)
        expect(sheep.popover.locator("[aria-current=true] .name")).to_have_text(shown(sheep.logprobs["tokens"][number]))
        expect(sheep.popover).to_contain_text(f"entropy {sheep.logprobs['entropy'][number]:.2f} nats")
        assert rows(sheep) == [expected(sheep.logprobs, number)]
        assert len(rows(sheep)[0]) == 10


def test_the_bars_are_as_long_as_the_probabilities(sheep):
    hover(sheep, 0)
    bars = sheep.popover.locator(".bar").all()
    full = bars[0].bounding_box()["width"]
    likeliest = sorted(sheep.logprobs["top_logprobs"][0].values(), reverse=True)
    for bar, logprob in zip(bars, likeliest, strict=True):
        assert bar.locator("i").bounding_box()["width"] == pytest.approx(max(full * math.exp(logprob), 1), abs=0.6)


def test_the_list_goes_when_the_pointer_leaves(sheep):
    hover(sheep, 3)
    sheep.page.mouse.move(5, 5)
    expect(sheep.popover).to_be_hidden()


def test_a_token_chosen_against_the_odds_is_listed_too(desk):
    """At a high temperature many a token is none of the ten likeliest."""
    wild = {"prompt": "", "temperature": 5, "max_tokens": 3, "logprobs": 10, "return_token_ids": True}
    choices = ((seed, desk.ask(**wild, seed=seed)["choices"][0]) for seed in range(1000))
    seed, choice = next(
        (seed, choice)
        for seed, choice in choices
        if choice["text"].isascii() and len(choice["logprobs"]["top_logprobs"][1]) == 11
    )
    desk.set(temperature=5, max_tokens=3, seed=seed)
    desk.generate()
    hover(desk, 1)
    assert rows(desk) == [expected(choice["logprobs"], 1)]
    assert len(rows(desk)[0]) == 11
    expect(desk.popover.locator("[aria-current=true] .name")).to_have_text(shown(choice["logprobs"]["tokens"][1]))


@pytest.mark.parametrize(("number", "rank"), [(0, 3), (4, 1), (10, 9)])
def test_clicking_an_alternative_goes_on_from_there(sheep, number, rank):
    hover(sheep, number)
    sheep.generate(sheep.popover.locator("li button").nth(rank).click)
    expect(sheep.popover).to_be_hidden()
    kept = sheep.logprobs["tokens"][:number]
    before = "Once " + "".join(kept)
    branch = ask(sheep, before, forced_ids=[alternative(sheep, number, rank)])
    assert branch["logprobs"]["token_ids"][0] == alternative(sheep, number, rank)
    assert sheep.text == before + branch["text"]
    assert sheep.tokens.all_text_contents()[:number] == kept


def test_what_stood_there_before_a_branch_stays_as_a_try(sheep):
    hover(sheep, 4)
    sheep.generate(sheep.popover.locator("li button").nth(2).click)
    branched = sheep.text
    sheep.page.locator("#try-previous").click()
    assert sheep.text == "Once " + WRITTEN
    sheep.page.locator("#try-next").click()
    assert sheep.text == branched
    sheep.press("Control+z")
    assert sheep.text == "Once " + WRITTEN


def test_the_token_that_was_chosen_is_no_branch(sheep):
    hover(sheep, 4)
    sheep.popover.locator("[aria-current=true]").click()
    expect(sheep.popover).to_be_hidden()
    assert len(sheep.requests) == 1
    assert sheep.text == "Once " + WRITTEN


def test_what_a_branch_cuts_off_is_an_older_try(sheep):
    sheep.type(" is mine.")
    before = sheep.text
    hover(sheep, 4)
    sheep.generate(sheep.popover.locator("li button").nth(2).click)
    branch = ask(sheep, "Once the she", forced_ids=[alternative(sheep, 4, 2)])
    assert sheep.text == f"Once the she{branch['text']}"
    sheep.page.locator("#try-previous").click()
    assert sheep.text == before


def test_a_branch_from_a_branch_goes_on_from_there(sheep):
    hover(sheep, 4)
    sheep.generate(sheep.popover.locator("li button").nth(2).click)
    hover(sheep, 1)
    sheep.generate(sheep.popover.locator("li button").nth(1).click)
    assert sheep.text == "Once t" + ask(sheep, "Once t", forced_ids=[alternative(sheep, 1, 1)])["text"]


def test_the_tokens_of_a_chinese_character_are_listed_one_below_the_other(poem):
    expect(poem.tokens).to_have_count(5)
    hover(poem, 1)
    assert rows(poem) == [expected(poem.logprobs, number) for number in (3, 4, 5)]
    assert poem.popover.locator("[aria-current=true] .name").all_text_contents() == ["⟨E5⟩", "⟨89⟩", "⟨8D⟩"]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_branch_inside_a_chinese_character_goes_on_from_its_bytes(poem, part):
    hover(poem, 1)
    number = 3 + part
    poem.generate(poem.popover.locator("ul").nth(part).locator("button").nth(2).click)
    ids = [*poem.logprobs["token_ids"][3:number], alternative(poem, number, 2)]
    branch = ask(poem, "床", forced_ids=ids)
    assert branch["logprobs"]["token_ids"][: len(ids)] == ids
    assert poem.text == poem.model_text == "床" + branch["text"]


def test_a_text_that_stopped_inside_a_character_is_gone_on_from_there(sit_at, dictate):
    desk = sit_at(dictate(CHINESE))
    desk.set(temperature=0, max_tokens=5)  # a character, and two thirds of the next
    desk.generate()
    assert desk.text.startswith("床")
    desk.set(max_tokens=40)
    desk.generate()
    assert desk.text == CHINESE


def test_tokens_are_walked_through_by_keyboard(sheep):
    sheep.caret_at(len("Once the"))
    sheep.page.wait_for_timeout(100)
    sheep.press("F2")
    expect(sheep.tokens.nth(1)).to_be_focused()
    assert rows(sheep) == [expected(sheep.logprobs, 1)]
    sheep.press("ArrowRight", "ArrowRight")
    expect(sheep.tokens.nth(3)).to_be_focused()
    assert rows(sheep) == [expected(sheep.logprobs, 3)]
    sheep.press("ArrowDown", "ArrowDown", "Enter")
    sheep.wait()
    branch = ask(sheep, "Once the s", forced_ids=[alternative(sheep, 3, 1)])
    assert sheep.text == "Once the s" + branch["text"]


def test_escape_leads_from_the_tokens_back_to_writing(sheep):
    sheep.press("F2", "ArrowDown", "Escape", "Escape")
    expect(sheep.popover).to_be_hidden()
    expect(sheep.document).to_be_focused()
    sheep.press("Control+End")
    sheep.page.keyboard.type("!")
    assert sheep.text == "Once " + WRITTEN + "!"


def test_a_tap_on_a_phone_lists_a_tokens_alternatives(sit_at, dictate):
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    desk = sit_at(dictate(WRITTEN), **phone)
    desk.page.locator("#settings").tap()
    desk.set(temperature=0, top_k=0, top_p=1)
    desk.page.locator("#settings-close").tap()
    desk.generate(desk.go.tap)
    desk.tokens.nth(2).tap()
    expect(desk.popover).to_be_visible()
    assert rows(desk) == [expected(ask(desk, "")["logprobs"], 2)]


def background(token):
    """How much colour lies behind a token, from 0 to 1."""
    colour = token.evaluate("element => getComputedStyle(element).backgroundColor")
    return float(re.search(r"/ ([\d.e-]+)\)$|, ([\d.]+)\)$", colour)[0].strip("/ ,)"))


def test_shading_is_stronger_where_the_model_was_less_sure(sheep):
    assert background(sheep.tokens.nth(10)) == 0
    shade = sheep.page.locator("#shade")
    shade.click()
    expect(shade).to_have_attribute("aria-pressed", "true")
    expect(sheep.page.locator("#legend")).to_be_visible()
    shades = [background(token) for token in sheep.tokens.all()]
    entropies = sheep.logprobs["entropy"]
    order = sorted(range(len(entropies)), key=lambda number: entropies[number])
    assert sorted(range(len(shades)), key=lambda number: shades[number]) == order
    assert shades[order[-1]] > 2 * shades[order[0]]
    shade.click()
    expect(sheep.page.locator("#legend")).to_be_hidden()
    assert background(sheep.tokens.nth(order[-1])) == 0


def test_no_model_is_asked_to_go_on_from_another_ones_token(desk):
    desk.type("Once upon a time")
    desk.generate()
    desk.page.reload()
    desk.page.locator("#model").select_option("hf-safetensors")
    written = desk.text
    desk.tokens.nth(3).click()
    desk.popover.get_by_role("button", name="go on from here").first.click()
    expect(desk.status).to_have_text("roomy wrote this: choose that model to go on from its tokens.")
    assert (desk.text, len(desk.requests)) == (written, 1)


# --- text that comes later than its tokens, or not as they have it ---

PIECES = """async ({ chunks, reason }) => {
  const { Pieces } = await import("./page/pieces.js");
  const pieces = new Pieces();
  for (const [id, token, text] of chunks) {
    pieces.add({ text, logprobs: { tokens: [token], token_ids: [id], token_logprobs: [-1] } });
  }
  pieces.end(reason);
  return pieces.runs.map((run) => [run.text, run.tokens.map((token) => token.id)]);
}"""


def runs_of(desk, *chunks, reason="stop"):
    """The runs that (token id, token, text) make, as the server streams them."""
    return desk.page.evaluate(PIECES, {"chunks": chunks, "reason": reason})


def test_a_character_that_breaks_off_after_two_bytes_is_one_sign_of_two_tokens(desk):
    chunks = [
        (1, r"bytes:\xe6", ""), (2, r"bytes:\x9d", ""), (3, r"bytes:\xe8", "\ufffd"), (4, r"bytes:\xaf", ""),
        (5, r"bytes:\x8d", "词"), (6, "!", "!"),
    ]  # fmt: skip
    assert runs_of(desk, *chunks) == [["\ufffd", [1, 2]], ["词", [3, 4, 5]], ["!", [6]]]


def test_text_that_no_token_stands_for_is_shown_all_the_same(desk):
    runs = runs_of(desk, *[(n, "a", "b") for n in range(17)], (17, "c", "c"))
    assert runs == [["b" * 17, list(range(17))], ["c", [17]]]


def test_a_long_text_that_is_held_back_keeps_its_tokens(desk):
    """As before a long stop string that does not come in the end."""
    held = [(n, "ab", "a" if n == 0 else "") for n in range(20)]
    assert runs_of(desk, *held, (20, "!", "b" + "ab" * 19 + "!")) == [*[["ab", [n]] for n in range(20)], ["!", [20]]]
