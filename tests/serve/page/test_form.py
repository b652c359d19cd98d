"""The page without JavaScript: a form in, a page out, what was typed black and what the model wrote red."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

BLACK, RED = "rgb(0, 0, 0)", "rgb(179, 18, 29)"
HOSTILE = "\n<img src=x onerror=\"document.title='taken'\"></p></textarea>;"
# Ids 0 to 93 of the vocabulary are the signs of ASCII from ! to ~ and the engine counts on: half a window after ";".
COUNTED = "".join(map(chr, range(ord("<"), ord("<") + 28)))


@pytest.fixture
def open_form(serve, counting, tiny_checkpoint, open_page):
    """Opens the first page of a new server in a browser that runs no JavaScript."""

    def opened(**options):
        server = serve(tiny_checkpoint, engine=counting(), **options).until_ready()
        return open_page(server, java_script_enabled=False)

    return opened


def enter(page, seed):
    page.locator("textarea").fill(seed)
    page.get_by_role("button").click()


def test_without_javascript_the_page_is_a_form(open_form):
    page = open_form()
    expect(page.get_by_label("Enter a seed sentence:")).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(1)
    expect(page.locator("#document")).to_be_hidden()


def test_the_seed_comes_back_black_and_the_models_text_red(open_form):
    page = open_form()
    enter(page, "It began;")
    text = page.locator("p.text")
    expect(text).to_have_text("It began;" + COUNTED)
    expect(text).to_have_css("color", BLACK)
    expect(text.locator("*")).to_have_text([COUNTED])
    expect(text.locator("*")).to_have_css("color", RED)
    expect(page.locator("body")).to_have_css("background-color", "rgb(255, 255, 255)")


def test_the_form_can_be_sent_again_and_again(open_form):
    page = open_form()
    for seed in ("It began;", "It went on;"):
        enter(page, seed)
        expect(page.locator("p.text")).to_have_text(seed + COUNTED)
        expect(page.locator("textarea")).to_have_value(seed)


def test_markup_is_text_whether_of_a_seed_or_of_the_models(open_form):
    page = open_form()
    enter(page, HOSTILE)
    expect(page.locator("p.text")).to_have_text(HOSTILE + COUNTED, use_inner_text=False)
    expect(page.locator("p.text *")).to_have_text([COUNTED])
    expect(page.locator("textarea")).to_have_value(HOSTILE)
    expect(page.locator("img")).to_have_count(0)


def test_an_answer_runs_nothing_where_javascript_is_on(open_form, open_page):
    """The form is carried into such a browser from one without, for there the first page has none."""
    form = open_form()
    enter(form, "A")
    page = open_page(form.url, "health")
    page.set_content(form.content())
    page.locator("form").evaluate("form => { form.action = './'; }")
    enter(page, HOSTILE)
    expect(page.locator("p.text")).to_have_text(HOSTILE + COUNTED, use_inner_text=False)
    expect(page.locator("img")).to_have_count(0)
    expect(page).to_have_title("GPT-2")


@pytest.mark.parametrize("seed", ["", " \n"])
def test_an_empty_seed_is_asked_for(open_form, seed):
    page = open_form()
    enter(page, "It began;")
    enter(page, seed)
    expect(page.get_by_role("alert")).to_have_text("Please enter a seed sentence.")
    expect(page.locator("p.text")).to_be_hidden()
    enter(page, "It went on;")
    expect(page.locator("p.text")).to_have_text("It went on;" + COUNTED)


def test_the_first_form_is_not_sent_empty(open_form):
    page = open_form()
    page.get_by_role("button").click()
    expect(page.locator("textarea:invalid")).to_be_focused()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_where_keys_are_needed_the_form_asks_for_one_and_keeps_the_seed(open_form, complaints):
    page = open_form(keys=["right"])
    enter(page, "It began;")
    expect(page.get_by_role("alert")).to_have_text("This server needs a key.")
    page.get_by_label("Key:").fill("wrong")
    with page.expect_navigation() as answer:
        page.get_by_role("button").click()
    assert answer.value.status == 401
    expect(page.get_by_role("alert")).to_have_text("This key is not one of the server's.")
    expect(page.locator("textarea")).to_have_value("It began;")
    expect(page.locator("p.text")).to_be_hidden()
    page.get_by_label("Key:").fill("right")
    page.get_by_role("button").click()
    expect(page.locator("p.text")).to_have_text("It began;" + COUNTED)
    assert "right" not in page.content()
    complaints.clear()  # the two 401


def test_without_keys_the_form_asks_for_none(open_form):
    page = open_form()
    enter(page, "It began;")
    expect(page.get_by_label("Key:")).to_be_hidden()
