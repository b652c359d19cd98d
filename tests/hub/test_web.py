"""Redirects, the token, and what is said when nobody answers."""

import socket

import pytest

from gpt2kit.errors import DownloadError
from gpt2kit.hub.web import MayPass, Web, next_hop

TOKEN = "hf_secret"


def body_of(web, url):
    with web.get(url, {}) as answer:
        return answer.status, b"".join(answer.chunks)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_another_host(new_site, status):
    home, away = new_site(), new_site()
    home.always("/f", home.says(status, Location=away.put("/g", b"here")))
    with Web(home.url) as web:
        assert body_of(web, f"{home.url}/f") == (200, b"here")


@pytest.mark.parametrize("location", ["/deep/g", "g", "../deep/g"])
def test_relative_redirects_are_followed(site, web, location):
    site.put("/deep/g", b"here")
    site.always("/deep/f", site.says(307, Location=location))
    assert body_of(web, f"{site.url}/deep/f") == (200, b"here")


def test_a_range_is_asked_for_after_a_redirect_too(site, web):
    site.put("/g", b"0123456789")
    site.always("/f", site.says(302, Location="/g"))
    with web.get(f"{site.url}/f", {"Range": "bytes=4-"}) as answer:
        assert (answer.status, b"".join(answer.chunks)) == (206, b"456789")


def test_the_token_goes_home_and_nowhere_else(new_site):
    home, away = new_site(), new_site()
    home.always("/f", home.says(302, Location="/g"))
    home.always("/g", home.says(302, Location=away.put("/h", b"here")))
    with Web(home.url, TOKEN) as web:
        assert body_of(web, f"{home.url}/f") == (200, b"here")
    assert [asked.headers.get("authorization") for asked in home.asked] == [f"Bearer {TOKEN}"] * 2
    assert TOKEN not in str(away.asked)


def test_the_same_host_on_another_port_is_another_host(new_site):
    home, away = new_site(), new_site()
    with Web(home.url, TOKEN) as web:
        body_of(web, away.put("/f", b"here"))
    assert "authorization" not in away.asked[0].headers


def test_passwords_of_netrc_are_sent_to_nobody(site, web, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    body_of(web, site.put("/f", b"here"))
    assert "authorization" not in site.asked[0].headers


def test_a_token_is_shown_by_nothing(site):
    with Web(site.url, TOKEN) as web, pytest.raises(DownloadError) as error:
        body_of(web, "http://127.0.0.1:1/f")
    assert TOKEN not in str(error.value) + repr(web)


def test_redirects_in_a_circle_are_refused(site, web):
    site.always("/f", site.says(302, Location="/g"))
    site.always("/g", site.says(302, Location="/f"))
    with pytest.raises(DownloadError, match=r"/f: redirects without end, 2 of them"):
        body_of(web, f"{site.url}/f")


def test_redirects_without_end_are_refused(site, web):
    for number in range(20):
        site.always(f"/{number}", site.says(302, Location=f"/{number + 1}"))
    with pytest.raises(DownloadError, match="redirects without end, 11 of them"):
        body_of(web, f"{site.url}/0")


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("file:///etc/passwd", "a redirect to file:, expected https"),
        ("ftp://example.org/f", "a redirect to ftp:, expected https"),
        ("http://[::1/f", r"a redirect to 'http://\[::1/f', which is no address"),
        ("http://x:99999/f", "a redirect to 'http://x:99999/f', which is no address"),
        (None, "a redirect that leads nowhere"),
    ],
)
def test_redirects_out_of_the_web_are_refused(site, web, location, said):
    site.always("/f", site.says(302, Location=location))
    with pytest.raises(DownloadError, match=f"/f: {said}"):
        body_of(web, f"{site.url}/f")


def test_signatures_and_orders_to_the_terminal_are_not_shown(site, web):
    site.always("/f", site.says(302, Location="http://x\x1b[31m/g?Signature=secret"))
    with pytest.raises(DownloadError) as error:
        body_of(web, f"{site.url}/f")
    assert "secret" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_a_redirect_from_https_to_http_is_refused():
    with pytest.raises(DownloadError, match="a redirect from https to http, to 'example"):
        next_hop("https://huggingface.co/f", "http://example.org/f", ["https://huggingface.co/f"])


def test_an_unknown_host_is_said_at_once_with_the_way_out(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Web("http://nowhere.invalid") as web, pytest.raises(DownloadError) as error:
        body_of(web, "http://nowhere.invalid/f")
    assert str(error.value).startswith(
        "http://nowhere.invalid/f: the host nowhere.invalid is not known; is there a netw"
    )
    assert "HF_ENDPOINT" in str(error.value)
    assert "HTTPS_PROXY" in str(error.value)


def test_a_closed_port_is_said_at_once():
    with (
        Web("http://127.0.0.1:1") as web,
        pytest.raises(DownloadError, match=r"the host 127\.0\.0\.1 takes no connection"),
    ):
        body_of(web, "http://127.0.0.1:1/f")


def test_a_host_that_answered_before_may_come_back(site, web):
    body_of(web, site.put("/f", b"here"))
    with pytest.raises(MayPass, match=r"the connection to 127\.0\.0\.1 broke"):
        body_of(web, "http://127.0.0.1:1/f")


def test_a_proxy_of_the_environment_is_used(site, monkeypatch):
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    site.always("http://mirror.invalid/f", site.says(200, b"by proxy"))
    with Web("http://mirror.invalid") as web:
        assert body_of(web, "http://mirror.invalid/f") == (200, b"by proxy")


def endless_redirect(handler, site, stored):
    """Leads elsewhere, with a body that never ends."""
    handler.send_response(302)
    handler.send_header("Location", "/g")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(1000):
        handler.wfile.write(bytes(1 << 16))
        site.sent["/f"] += 1 << 16


def test_what_comes_with_a_redirect_is_not_read(site, web):
    site.put("/g", b"here")
    site.always("/f", endless_redirect)
    assert body_of(web, f"{site.url}/f") == (200, b"here")
    assert site.sent["/f"] < 30_000_000


def test_an_address_that_is_none_is_an_error_of_the_user(web):
    with pytest.raises(DownloadError, match="http://:/f"):
        body_of(web, "http://:/f")
