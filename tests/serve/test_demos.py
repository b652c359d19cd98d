"""The demos of 2019 (a form) and 2021 (POST /generate): what they answered, without their faults."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urlencode

import numpy as np
import pytest

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def send(api):
    """Sends the form as a browser does."""

    def sent(**fields):
        response = api.post("/", content=urlencode(fields), headers=FORM)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        return response

    return sent


def written(page):
    """What a reader sees as input and as output."""
    found = re.search(r'<p class="text">(.*)<span class="output">(.*)</span></p>', page, re.DOTALL)
    return tuple(map(unescape, found.groups()))


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "every element ends where it should"


# --- the form ---


def test_the_first_page_has_the_form(api):
    page = api.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    tags = Tags(page.text).seen
    assert any(tag == "form" and found.get("method") == "post" for tag, found in tags)
    assert any(found.get("name") == "seed" for _, found in tags)


def test_the_form_brings_the_seed_and_what_follows_it(send):
    response = send(seed="Hello")
    seed, output = written(response.text)
    assert (response.status_code, seed) == (200, "Hello")
    assert output
    assert not Tags(response.text).open
    assert "style=" not in response.text


@pytest.mark.parametrize("fields", [{}, {"seed": ""}, {"seed": " \r\n"}, {"other": "x"}])
def test_an_empty_form_comes_back_with_a_word(send, fields):
    response = send(**fields)
    assert response.status_code == 200
    assert "Please enter a seed sentence." in response.text
    assert 'name="seed"' in response.text


@pytest.mark.parametrize("seed", [SCRIPT, "<img src=x onerror=alert(1)>", '"><b>', "</textarea><b>", "&lt;b&gt;"])
def test_a_seed_stays_text(send, seed):
    page = send(seed=seed).text
    assert written(page)[0] == seed
    assert seed not in page
    assert {tag for tag, _ in Tags(page).seen} == {tag for tag, _ in Tags(send(seed="A").text).seen}


def test_what_the_model_writes_stays_text(tiny_checkpoint, client_of):
    less_than = 27
    with client_of(always(tiny_checkpoint, less_than)) as client:
        page = client.post("/", content="seed=A", headers=FORM).text
    assert set(written(page)[1]) == {"<"}
    assert page.count("&lt;") == 28, "half a window of new tokens"


def always(checkpoint, id):
    """The same model, its last layer changed so that it writes one token for ever."""
    wte_VD = checkpoint.tensors["wte.weight"].read()
    last = {"ln_f.weight": np.zeros_like(wte_VD[0]), "ln_f.bias": 1000 * wte_VD[id]}
    changed = {name: replace(checkpoint.tensors[name], load=lambda new=new: new) for name, new in last.items()}
    return replace(checkpoint, tensors={**checkpoint.tensors, **changed})


def test_lines_of_a_seed_end_as_the_model_knows_them(send):
    assert written(send(seed="A\r\nB\r\n").text)[0] == "A\nB\n"


def test_the_seed_stands_in_the_form_again_with_its_first_line_even_if_empty(send):
    field = re.search(r"<textarea[^>]*>\n?(.*?)</textarea>", send(seed="\nA").text, re.DOTALL)  # HTML skips one
    assert field[1] == "\nA"


def test_a_seed_in_any_script_is_read(send):
    assert written(send(seed="床前明月光 🙂").text)[0] == "床前明月光 🙂"


def test_a_long_seed_is_cut_for_the_model_not_for_the_reader(send):
    assert written(send(seed="A" * 300).text)[0] == "A" * 300


@pytest.mark.parametrize(
    ("body", "status"),
    [*((body, 200) for body in (b"\xff=%ff&seed", b"seed=%", b"{}")), (b"&" * 100_000, 400), (b"a&" * 5000, 400)],
)
def test_a_strange_form_is_answered_with_a_form(api, body, status):
    response = api.post("/", content=body, headers=FORM)
    assert (response.status_code, 'name="seed"' in response.text) == (status, True)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded; charset=utf-8"])
def test_the_content_type_of_a_form_does_not_matter(api, content_type):
    assert written(api.post("/", content="seed=A", headers={"Content-Type": content_type}).text)[0] == "A"


@pytest.mark.parametrize(
    ("key", "status", "message"),
    [
        ("right", 200, ""),
        ("wrong", 401, "This key is not one of the server&#x27;s."),
        ("", 401, "This server needs a key."),
    ],
)
def test_where_keys_are_needed_the_form_has_a_field_for_one(golden, client_of, key, status, message):
    with client_of(golden / "hf-safetensors", keys=["right"]) as client:
        response = client.post("/", content=urlencode({"seed": "A", "key": key}), headers=FORM)
    assert response.status_code == status
    assert "<label hidden>Key" not in response.text
    assert f'<p role="alert">{message}</p>' in response.text
    assert "right" not in response.text


@pytest.mark.parametrize(("key", "status"), [("right", 200), ("wrong", 401)])
@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "X-Api-Key: {}"])
def test_programs_send_the_key_of_the_form_as_everywhere_else(golden, client_of, header, key, status):
    name, value = header.format(key).split(": ")
    with client_of(golden / "hf-safetensors", keys=["right"]) as client:
        response = client.post("/", content="seed=A", headers=FORM | {name: value})
        figures = client.get("/metrics", headers={"X-Api-Key": "right"}).text
    assert response.status_code == status
    assert ('gpt2kit_requests_rejected_total{status="401"} 1.0' in figures) == (status == 401)


def test_who_sent_the_form_reads_what_went_wrong_on_a_page_and_keeps_the_seed(golden, client_of):
    with client_of(golden / "hf-safetensors") as client:
        client.app.state.worker.drain()
        response = client.post("/", content="seed=My%20<seed>", headers=FORM)
    assert (response.status_code, response.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "stopping" in response.text
    assert "My &lt;seed&gt;</textarea>" in response.text


# --- POST /generate ---


@pytest.mark.slow
def test_generate_continues_greedily_up_to_a_hundred_tokens(ask):
    asked = {"prompt": "Hello world", "temperature": 0, "echo": True}
    for length, more in [({}, 93), ({"max_length": 20}, 13)]:  # "Hello world" has 7 tokens
        (choice,) = ask("/v1/completions", **asked, max_tokens=more)["choices"]
        assert ask("/generate", text="Hello world", **length) == {"generated_text": choice["text"]}


def test_generate_begins_a_text_where_there_is_none(ask):
    assert ask("/generate", text="", max_length=5)["generated_text"]


def test_a_text_beyond_the_window_is_continued_from_its_end(ask):
    text = "A" * 90
    assert ask("/generate", text=text)["generated_text"].startswith(text)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": 5}, "text"),
        ({"text": None}, "text"),
        ({"text": "A" * 2000}, "max_length"),
        ({"text": "A", "max_length": 1}, "max_length"),
        ({"text": "A", "max_length": "9"}, "max_length"),
        ({"text": "A", "top_k": 4}, "top_k"),
    ],
)
def test_what_generate_cannot_do_is_refused_by_field(refuse, body, param):
    status, error = refuse("/generate", **body)
    assert (status, error["param"]) == (400, param)


def test_generate_wants_json(api):
    assert api.post("/generate", content="text=A", headers=FORM).status_code == 415
    assert api.post("/generate", content="text", headers={"Content-Type": "application/json"}).status_code == 400
