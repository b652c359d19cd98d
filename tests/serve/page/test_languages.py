"""English and Chinese: every word changes, and none is forgotten."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

import gpt2kit.serve

pytestmark = pytest.mark.browser

PAGE = Path(gpt2kit.serve.__file__).parent / "page"
TABLES = {"strings.js": "STRINGS", "runs-texts.js": "TEXTS", "docs-texts.js": "TEXTS"}
SOURCES = {path.name: path.read_text("utf-8") for path in PAGE.iterdir() if path.suffix in (".js", ".html")}
WORDS = """skip => {
  const words = [document.title];
  const walk = (element) => {
    if (element.matches(skip) || getComputedStyle(element).display === "none") return;
    for (const name of ["aria-label", "title", "placeholder", "aria-description", "data-placeholder"]) {
      if (element.hasAttribute(name)) words.push(element.getAttribute(name));
    }
    for (const node of element.childNodes) {
      if (node.nodeType === Node.TEXT_NODE) words.push(node.data);
      else if (node.nodeType === Node.ELEMENT_NODE) walk(node);
    }
  };
  walk(document.body);
  return words.map((text) => text.trim()).filter((text) => text !== "");
}"""
# Names, texts, keys and addresses; a token's alternatives have few letters.
IN_NO_LANGUAGE = (
    "noscript, script, kbd, code, pre, #aloud, .token, .alternative p, #popover .name, #model, #language, .brand"
)
SAME_IN_BOTH = re.compile(
    r"gpt2kit|Top [kp]|Min p|Ctrl|Control|Enter|Shift|Esc|\.json|\.txt|API|OpenAI|Python|KEY"
    r"|Authorization: Bearer|X-Api-Key|checkpoint/|openapi.json|dictating"
)


def strings(page, table):
    return page.evaluate("async ([file, name]) => (await import(`./page/${file}`))[name]", [table, TABLES[table]])


@pytest.fixture(scope="module")
def tables(browser, server):
    page = browser.new_page()
    page.goto(server)
    yield {table: strings(page, table) for table in TABLES}
    page.close()


@pytest.mark.parametrize("table", TABLES)
def test_every_text_is_there_in_both_languages_with_the_same_places_to_fill(tables, table):
    places = {tongue: {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in texts.items()}
              for tongue, texts in tables[table].items()}  # fmt: skip
    assert places["en"] == places["zh"]


@pytest.mark.parametrize("table", TABLES)
def test_every_text_is_used(tables, table):
    code = "\n".join(text for name, text in SOURCES.items() if name != table)
    made = re.findall(r"\bt\(`([^`]+)`", code)
    built = [re.sub(r"\\\$\\\{.+?\\\}", r"\\w+", re.escape(one)) for one in made]
    built = re.compile("|".join(built))
    named = [key for key in tables[table]["en"] if re.search(rf"""["'`]{key}["'`]|\b{key}[:,]""", code)]
    assert [key for key in tables[table]["en"] if key not in named and not built.fullmatch(key)] == []


@pytest.mark.parametrize("page_name", ["index.html", "runs.html", "docs.html"])
def test_every_text_that_html_names_is_known(tables, page_name):
    table = {"index.html": "strings.js"}.get(page_name, page_name.replace(".html", "-texts.js"))
    header = set(re.findall(r"(\w+): \"", SOURCES["site-header.js"]))
    named = set(re.findall(r'data-t(?:-\w+)?="(\w+)"', SOURCES[page_name]))
    assert named - header - tables[table]["en"].keys() == set()


@pytest.mark.parametrize(("locale", "lang"), [("en-GB", "en"), ("zh-CN", "zh-CN"), ("zh-TW", "zh-CN"), ("de-DE", "en")])
def test_the_browsers_language_is_taken_where_it_is_known(open_page, server, locale, lang):
    page = open_page(server, locale=locale)
    expect(page.locator("html")).to_have_attribute("lang", lang)


def test_the_choice_of_a_language_is_kept_on_every_page(desk):
    page = desk.page
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page).to_have_title("写作 · gpt2kit")
    for path in ("", "runs", "docs"):
        page.goto(path)
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.get_by_role("button", name="English").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_changing_the_language_leaves_the_text_and_the_settings_as_they_are(desk):
    desk.type("1 + 1 = ")
    desk.generate()
    before = desk.text, desk.model_text, desk.page.locator("#max-tokens").input_value()
    desk.page.get_by_role("button", name="中文").click()
    assert (desk.text, desk.model_text, desk.page.locator("#max-tokens").input_value()) == before


def test_changing_the_language_loses_no_problem_and_no_way_on(desk, complaints):
    desk.type("1 + 1 = ")
    desk.page.context.set_offline(True)
    desk.go.click()
    expect(desk.status).to_contain_text("The server cannot be reached")
    desk.page.locator("#language").click()
    expect(desk.status.get_by_role("button")).to_have_count(2)
    desk.page.context.set_offline(False)
    desk.status.get_by_role("button").first.click()
    expect(desk.figures).not_to_be_empty()
    complaints.clear()  # of the network


def nothing(desk):
    pass


def written(desk):
    desk.type("1 + 1 = ")
    desk.go.click()
    expect(desk.figures).not_to_be_empty()


def shaded(desk):
    written(desk)
    desk.page.locator("#shade").click()


def alternatives(desk):
    desk.page.locator("#count button").nth(1).click()
    written_three(desk)


def written_three(desk):
    desk.type("1 + 1 = ")
    desk.go.click()
    expect(desk.page.locator(".alternative button")).to_have_count(3)
    expect(desk.go).not_to_have_class(re.compile("stop"))


def history(desk):
    desk.type("1 + 1 = ")
    desk.page.locator("#history").click()


def shortcuts(desk):
    desk.page.locator("#shortcuts").click()


def popover(desk):
    written(desk)
    desk.seen.first.click()
    expect(desk.popover).to_be_visible()


def wrong_setting(desk):
    desk.set(top_p=7)
    desk.go.click()
    expect(desk.status).not_to_be_empty()


def too_long_for_a_link(desk):
    desk.document.focus()
    desk.page.keyboard.insert_text("1234 " * 2000)
    desk.page.locator("#share").click()
    expect(desk.status).not_to_be_empty()


STATES = [nothing, written, shaded, alternatives, history, shortcuts, popover, wrong_setting, too_long_for_a_link]


def foreign(words, pattern):
    return [text for text in words if re.search(pattern, SAME_IN_BOTH.sub("", text))]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_word_is_of_the_language_that_is_chosen(sit_at, server, state):
    desk = sit_at(server, locale="zh-CN")
    state(desk)
    english = "[A-Za-z]{4}" if state is popover else "[A-Za-z]{3}"
    assert foreign(desk.page.evaluate(WORDS, IN_NO_LANGUAGE), english) == []
    if desk.page.locator("dialog[open]").count():
        desk.press("Escape")
    desk.page.locator("#language").click()
    assert foreign(desk.page.evaluate(WORDS, IN_NO_LANGUAGE), "[\u4e00-\u9fff]") == []


@pytest.mark.parametrize("path", ["runs", "docs"])
def test_the_other_pages_are_chinese_too(open_page, server, path):
    page = open_page(server, path, locale="zh-CN")
    expect(page.locator("#empty:visible, .route").first).to_be_visible()
    of_the_server = f"{IN_NO_LANGUAGE}, #contents li li, .route"
    assert foreign(page.evaluate(WORDS, of_the_server), "[A-Za-z]{3}") == []
