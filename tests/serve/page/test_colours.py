"""Light and dark: as the system has it or as was chosen, and readable in both."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

# Of each visible text: its contrast as WCAG 2.2 computes it, and the least that is allowed for its size.
FAINT = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const over = (colour, below) => {
    canvas.fillStyle = `rgb(${below.join(" ")})`;
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const behind = (element) => {
    const below = element.parentElement ? behind(element.parentElement) : [255, 255, 255];
    return over(getComputedStyle(element).backgroundColor, below);
  };
  const light = (rgb) => {
    const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim();
    const element = texts.currentNode.parentElement;
    if (text === "" || element.closest(":disabled, .visually-hidden, option")) continue;
    if (!element.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    const ground = behind(element);
    const [a, b] = [light(over(style.color, ground)), light(ground)].sort((one, other) => other - one);
    const contrast = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if (contrast < least) faint.push(`${text.slice(0, 30)}: ${contrast.toFixed(2)} (${style.color} on ${ground})`);
  }
  return faint;
}"""
LIGHT, DARK = "rgb(251, 250, 246)", "rgb(23, 22, 20)"


@pytest.fixture(params=["light", "dark"])
def coloured(request, sit_at, server):
    """A desk in each of the two."""
    desk = sit_at(server, color_scheme=request.param)
    desk.set(temperature=2, top_k=0, max_tokens=40)
    return desk


def paper(page, colour):
    expect(page.locator("body")).to_have_css("background-color", colour)


def test_the_systems_choice_is_followed_also_when_it_changes(desk):
    paper(desk.page, LIGHT)
    desk.page.emulate_media(color_scheme="dark")
    paper(desk.page, DARK)


def test_the_button_goes_through_system_light_and_dark_and_every_page_keeps_the_choice(sit_at, server):
    page = sit_at(server, color_scheme="dark").page
    button = page.locator("#theme")
    paper(page, DARK)
    button.click()
    expect(button).to_have_attribute("aria-label", "Theme: light")
    paper(page, LIGHT)
    for path in ("", "runs", "docs"):
        page.goto(path)
        paper(page, LIGHT)
    button.click()
    paper(page, DARK)
    button.click()
    expect(button).to_have_attribute("aria-label", "Theme: as the system")
    page.emulate_media(color_scheme="light")
    paper(page, LIGHT)


def test_the_users_text_and_the_models_can_be_told_apart_without_colour(coloured):
    coloured.type("Once upon a time")
    coloured.generate()
    expect(coloured.document).to_have_css("text-decoration-line", "none")
    expect(coloured.tokens.first).to_have_css("text-decoration-line", "underline")


def problem(desk):
    desk.set(top_p=7)
    desk.go.click()
    expect(desk.status).not_to_be_empty()


def shaded(desk):
    desk.page.locator("#shade").click()
    desk.type("Once upon a time")
    desk.generate()


def token(desk):
    shaded(desk)
    desk.seen.first.click()


def alternatives(desk):
    desk.page.locator("#count button").nth(1).click()
    desk.type("Once upon a time")
    desk.generate()


def history(desk):
    desk.type("Once upon a time")
    desk.page.locator("#history").click()


def dropped(desk):
    desk.page.locator("#model").select_option("hf-safetensors")
    desk.document.focus()
    desk.page.keyboard.insert_text("Too long for it to read. " * 20)
    expect(desk.page.locator(".dropped").first).to_be_visible()


STATES = [lambda desk: None, problem, shaded, token, alternatives, history, dropped]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("<>"))
def test_every_text_stands_out_from_its_ground(coloured, state):
    state(coloured)
    assert coloured.page.evaluate(FAINT) == []


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("path", ["runs", "docs"])
def test_every_text_of_the_other_pages_stands_out_too(open_page, server, path, colours):
    page = open_page(server, path, color_scheme=colours)
    expect(page.locator("#empty:visible, .route").first).to_be_visible()
    assert page.evaluate(FAINT) == []
