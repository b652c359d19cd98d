"""Text stays text wherever it comes from, and the page talks to nobody but its server.

Every test here ends with the check of `complaints`: no dialog, no violation of the policy, no request to another host.
"""

import json
import re
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

ATTACK = (
    '<img src=x onerror="alert(1)"><script>alert(2)</script><svg onload=alert(3)><a href="javascript:alert(4)">x</a>'
)
FOREIGN = "img, iframe, object, embed, base, [onerror], [onload], a[href^=javascript], body script, meta[http-equiv]"


@pytest.fixture
def attacked(sit_at, dictate):
    """A desk at a server whose model writes ATTACK."""
    desk = sit_at(dictate(ATTACK))
    desk.set(temperature=0, top_k=0, max_tokens=200)
    return desk


def assert_harmless(desk):
    expect(desk.page.locator(FOREIGN)).to_have_count(0)
    assert desk.page.locator("script").count() == 2  # its own
    assert not any(address.endswith("/x") for address in addresses(desk))


def addresses(desk):
    """What the page has fetched so far."""
    return desk.page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")


def test_html_in_the_prompt_stays_text(desk):
    desk.type(ATTACK)
    desk.generate()
    assert desk.text == ATTACK + desk.model_text
    assert desk.requests[0]["prompt"] == ATTACK
    assert_harmless(desk)


def test_html_pasted_as_text_stays_text(desk):
    desk.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    desk.page.evaluate("(text) => navigator.clipboard.writeText(text)", ATTACK)
    desk.document.focus()
    desk.press("Control+v")
    assert desk.text == ATTACK
    assert_harmless(desk)


def test_html_that_the_model_writes_stays_text(attacked):
    attacked.generate()
    assert attacked.text == attacked.model_text == ATTACK
    assert_harmless(attacked)


def test_html_in_alternatives_stays_text(attacked):
    attacked.page.locator("#count button[value='3']").click()
    attacked.generate()
    assert attacked.page.locator(".alternative p").all_text_contents() == [ATTACK] * 3
    assert_harmless(attacked)
    attacked.press("2")
    assert attacked.text == ATTACK
    assert_harmless(attacked)


def test_html_stays_text_in_the_list_of_a_tokens_alternatives(attacked):
    attacked.generate()
    attacked.page.locator("#shade").click()
    for number in (0, 4, 30):
        attacked.tokens.nth(number).hover()
        expect(attacked.popover).to_be_visible()
    attacked.press("F2", "ArrowRight", "ArrowDown")
    assert_harmless(attacked)


def test_html_stays_text_in_the_history_and_after_loading_again(attacked):
    attacked.generate()
    attacked.page.locator("#history").click()
    expect(attacked.page.locator("#history-list")).to_contain_text("<img src=x")
    assert_harmless(attacked)
    attacked.page.reload()
    expect(attacked.tokens.first).to_be_attached()
    assert attacked.text == ATTACK
    assert_harmless(attacked)


def test_html_in_a_link_stays_text(sit_at, server):
    evil = quote(ATTACK)
    desk = sit_at(server, f"#prompt={evil}&stop={evil}&temperature={evil}&model={evil}&seed={evil}&{evil}={evil}")
    assert desk.text == ATTACK
    expect(desk.page.locator("#stop-strings")).to_have_value(ATTACK)
    assert_harmless(desk)


def test_html_in_a_document_from_a_file_stays_text(desk, tmp_path):
    file = tmp_path / "<img src=x onerror=alert(1)>.json"
    run = {"t": ATTACK, "k": [[1, -1, 2, [[1, ATTACK, -1]]]]}
    document = {"format": "gpt2kit-document", "version": 1, "name": ATTACK, "saved": 0, "model": ATTACK}
    file.write_text(json.dumps({**document, "runs": [run, ATTACK]}), "utf-8")
    desk.page.locator("#history").click()
    desk.page.locator("#import-file").set_input_files(file)
    expect(desk.tokens).to_have_count(1)
    assert desk.text == ATTACK * 2
    desk.tokens.hover(position={"x": 3, "y": 3})
    expect(desk.popover).to_contain_text("<img src=x")
    assert_harmless(desk)


def test_html_in_what_is_wrong_with_a_file_stays_text(desk, tmp_path):
    file = tmp_path / "<img src=x onerror=alert(1)>.json"
    file.write_text(json.dumps({"format": "gpt2kit-document", "version": ATTACK}), "utf-8")
    desk.page.locator("#history").click()
    desk.page.locator("#import-file").set_input_files(file)
    expect(desk.page.locator("#history-problem")).to_contain_text("onerror")
    assert_harmless(desk)


def test_html_in_the_name_of_a_model_stays_text(sit_at, serve, make_model):
    name = "<img src=x onerror=alert(1)>"
    desk = sit_at(serve(make_model(name), engine="reference").until_ready())
    expect(desk.page.locator("#model")).to_have_value(name)
    desk.set(max_tokens=3)
    desk.generate()
    assert desk.requests[0]["model"] == name
    assert_harmless(desk)


def test_html_in_what_the_server_refuses_stays_text(desk, complaints):
    """The server says in its message what was wrong."""
    refusal = {"error": {"message": ATTACK, "type": "invalid_request_error", "param": "temperature", "code": None}}
    desk.page.route("**/v1/completions", lambda route: route.fulfill(status=400, json=refusal))
    desk.generate()
    expect(desk.status).to_contain_text("<img src=x")
    expect(desk.page.locator("#temperature-error")).to_have_text(ATTACK)
    assert_harmless(desk)
    assert all("400" in complaint for complaint in complaints)
    complaints.clear()


def test_every_answer_forbids_all_that_is_not_the_servers_own(desk):
    for path in ("", "runs", "docs", "page/main.js", "nothing/here"):
        policy = desk.page.request.get(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert not re.search(r"unsafe|data:|\*|http", policy)


def test_the_policy_stops_scripts_and_styles_that_got_in_all_the_same(desk, complaints):
    desk.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.intruded = true";
          const image = document.createElement("div");
          image.innerHTML = "<img src='page/nothing.png' onerror='window.intruded = true'>";
          document.body.append(script, image);
        }"""
    )
    desk.page.wait_for_timeout(300)
    assert desk.page.evaluate("window.intruded") is None
    assert any("Content Security Policy" in complaint for complaint in complaints)
    complaints.clear()


def test_the_policy_stops_requests_to_other_hosts(desk, complaints):
    refused = desk.page.evaluate("fetch('https://example.org/').then(() => 'answered', () => 'refused')")
    assert refused == "refused"
    assert any("Content Security Policy" in complaint for complaint in complaints)
    complaints.clear()


def test_a_whole_session_asks_nobody_but_the_server(desk, server):
    """Writes, tries again, chooses, looks, shares, changes language and theme; `open_page` watches every request."""
    asked = []
    desk.page.on("request", lambda request: asked.append(request.url))
    desk.page.reload()
    desk.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    desk.set(temperature=1, max_tokens=10)
    desk.type("Once upon a time")
    desk.generate()
    desk.generate(lambda: desk.press("Control+r"))
    desk.page.locator("#count button[value='3']").click()
    desk.generate()
    desk.press("2")
    for button in ("shade", "share", "copy", "theme", "theme", "theme", "language", "language", "new"):
        desk.page.locator(f"#{button}").click()
    for page in ("Runs", "API", "Write"):
        desk.page.locator(".site-nav").get_by_text(page, exact=True).click()
        desk.page.wait_for_load_state("networkidle")
    assert len(asked) > 60
    assert {address[: len(server)] for address in asked} == {server}
