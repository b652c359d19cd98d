import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from gpt2kit.serve import pages
from gpt2kit.serve.errors import HttpError, error_response

FILES = sorted(path.name for path in pages.PAGE.iterdir())
HTML = [name for name in FILES if name.endswith(".html")]
LINKS = {"a": "href", "form": "action", "img": "src", "link": "href", "script": "src"}


@pytest.fixture(scope="module")
def client():
    app = FastAPI(docs_url=None)
    app.include_router(pages.router)
    app.add_exception_handler(HttpError, lambda request, error: error_response(error))
    return TestClient(app)


# --- what is served ---


@pytest.mark.parametrize("path", ["/runs", "/docs"])
def test_a_page_is_html(client, path):
    response = client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert response.text.lstrip().lower().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("runs.js", "text/javascript; charset=utf-8"),
        ("runs.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_has_its_media_type_on_every_system(client, name, media_type):
    assert client.get(f"/page/{name}").headers["content-type"] == media_type


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_byte_for_byte(client, name):
    assert client.get(f"/page/{name}").content == (pages.PAGE / name).read_bytes()


def test_browsers_find_the_icon_where_they_look_for_it(client):
    assert client.get("/favicon.ico").content == (pages.PAGE / "icon.svg").read_bytes()


def test_a_program_can_ask_whether_a_page_is_there(client):
    assert client.head("/runs").status_code == 200


@pytest.mark.parametrize(
    "name",
    ["nothing.js", "", "%2e%2e", "..%2fpages.py", "..%2F..%2ferrors.py", "%2fetc%2fpasswd", "..%5cpages.py", "%00"],
)
def test_nothing_else_is_served(client, name):
    assert client.get(f"/page/{name}").status_code == 404


def test_what_is_no_page_file_is_a_404_of_openais_shape(client):
    error = client.get("/page/nothing.js").json()["error"]
    assert (error["type"], error["code"]) == ("not_found_error", "not_found")
    assert "'nothing.js'" in error["message"]


def test_a_file_of_another_kind_in_the_directory_is_not_served(client, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "folder.js").mkdir()
    monkeypatch.setattr(pages, "PAGE", tmp_path)
    assert [client.get(f"/page/{name}").status_code for name in ("notes.txt", "folder.js")] == [404, 404]


# --- what the browser keeps ---


def test_a_browser_asks_each_time_and_is_told_that_nothing_changed(client):
    first = client.get("/page/runs.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/page/runs.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])


@pytest.mark.parametrize("sent", ['"another", {}', "W/{}"])
def test_a_tag_is_known_in_a_list_and_after_a_proxy_weakened_it(client, sent):
    tag = client.get("/page/runs.js").headers["etag"]
    assert client.get("/page/runs.js", headers={"if-none-match": sent.format(tag)}).status_code == 304


def test_an_upgrade_is_seen_even_if_size_and_date_stay(client, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "PAGE", tmp_path)
    (tmp_path / "a.js").write_text("old", encoding="utf-8")
    tag = client.get("/page/a.js").headers["etag"]
    (tmp_path / "a.js").write_text("new", encoding="utf-8")
    assert client.get("/page/a.js", headers={"if-none-match": tag}).text == "new"


# --- what the pages promise ---


class Links(HTMLParser):
    """What a page refers to, and what a strict content security policy would refuse in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.refused = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes[LINKS[tag]]] if LINKS.get(tag) in attributes else []
        self.refused += [name for name in attributes if name == "style" or name.startswith("on")]
        self.refused += ["inline code"] if tag == "style" or (tag == "script" and "src" not in attributes) else []


@pytest.mark.parametrize("name", HTML)
def test_pages_work_below_any_prefix_and_ask_no_other_host(client, name):
    for link in Links(pages.PAGE / name).links:
        assert not re.match(r"/|[a-z]+:", link), f"{name}: {link} is not relative"
        assert link in {"", "./", "runs", "docs", "favicon.ico", "openapi.json"} or link.startswith(("#", "page/")), (
            link
        )
        if link.startswith("page/"):
            assert client.get(f"/{link}").status_code == 200, f"{name}: {link} is not there"


@pytest.mark.parametrize("name", HTML)
def test_pages_run_under_a_policy_without_inline_code(name):
    assert Links(pages.PAGE / name).refused == []


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_scripts_never_turn_text_into_markup(name):
    text = (pages.PAGE / name).read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
