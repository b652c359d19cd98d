"""The page /docs: every route of the server, with examples that work as they stand there."""

import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from playwright.sync_api import expect

from gpt2kit.config.serving import ServingConfig
from gpt2kit.serve import create_app

pytestmark = pytest.mark.browser

CURL = pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")


@pytest.fixture
def docs(open_page, server):
    page = open_page(server, "docs")
    expect(page.locator(".route").first).to_be_visible()
    return page


def run(call):
    """What a shell makes of it: status, and the answer."""
    done = subprocess.run(
        ["sh", "-c", f"{call} --silent --max-time 30 --write-out '\\n%{{http_code}}'"],
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), answer


def test_every_route_of_the_server_is_shown(docs):
    paths = docs.request.get("openapi.json").json()["paths"]
    known = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    shown = {" ".join(title.split()) for title in docs.locator(".route h3").all_inner_texts()}
    assert shown == {route for route in known if not route.startswith("HEAD")}


@CURL
def test_every_example_does_what_it_says(serve, make_model, open_page):
    config = ServingConfig(chat_template="plain")
    page = open_page(serve(make_model("gpt2"), config=config, engine="reference").until_ready(), "docs")
    expect(page.locator(".route").first).to_be_visible()
    failed = {}
    for example in page.locator(".route .example code").all_inner_texts():
        status, answer = run(example)
        needs_more = "/api/runs/run1" in example or "/detokenize" in example  # a run; ids of the real vocabulary
        if status != 200 and not (needs_more and status in (400, 404)):
            failed[example] = answer
    assert failed == {}


def test_the_examples_in_python_are_for_this_server(docs, server):
    expect(docs.locator("#python")).to_contain_text('model="roomy"')
    code = docs.locator("#python").inner_text()
    assert f'base_url="{server}v1"' in code
    compile(code, "example", "exec")


def test_the_list_of_routes_leads_to_each(docs):
    for link in docs.locator("#contents a").all():
        target = urlsplit(link.get_attribute("href")).fragment
        assert docs.locator(f"[id='{target}']").count() == 1


def test_an_example_can_be_copied(open_page, server):
    page = open_page(server, "docs", permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator("#python")).to_contain_text('model="roomy"')
    page.locator("#copy-python").click()
    expect(page.locator("#copy-python")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#python").inner_text()


def test_what_the_description_says_stays_text(open_page, server):
    hostile = "<img src=x onerror=\"document.title='taken'\">"
    page = open_page(server)

    def answer(route):
        api = route.fetch().json()
        for methods in api["paths"].values():
            for told in methods.values():
                told.update(summary=hostile, description=hostile)
        api["info"]["version"] = hostile
        route.fulfill(json=api)

    page.context.route("**/openapi.json", answer)
    page.goto("docs")
    expect(page.locator(".route").first).to_contain_text(hostile)
    assert (page.locator("img").count(), page.title()) == (0, "API · gpt2kit")


def test_a_key_is_asked_for_and_used(serve, counting, open_page, complaints):
    page = open_page(serve(engine=counting(), keys=["sesame"]), "docs")
    for key, answer in [
        ("poppy", page.get_by_text("does not know this key")),
        ("sesame", page.locator(".route").first),
    ]:
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Use it").click()
        expect(answer).to_be_visible()
    expect(page.locator(".route .example code").first).to_contain_text("Authorization: Bearer $API_KEY")
    complaints.clear()  # the browser tells each 401 as an error


def test_the_pages_work_below_a_prefix(serve, counting, make_model, open_page, complaints):
    outer = FastAPI()
    outer.mount("/gpt2", create_app(make_model(), engine=counting()))
    page = open_page(serve(app=outer), "gpt2/")
    expect(page.locator("#model option")).to_have_text("roomy")
    page.get_by_role("link", name="Runs").click()
    expect(page.locator("#list:visible, #empty:visible")).to_be_visible()
    page.get_by_role("link", name="API").click()
    expect(page.locator(".route .example code").first).to_contain_text("/gpt2/v1/completions")
    complaints.clear()  # of 503: mounted, the model is read at the first request
