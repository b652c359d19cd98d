"""One file, over servers that break, lie, stall and refuse."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from gpt2kit.errors import DownloadError
from gpt2kit.hub.fetch import LONGEST_WAIT, TRIES, fetch
from gpt2kit.hub.partial import Partial
from gpt2kit.progress import silent

CONTENT = random.Random(2).randbytes(400_000)
PAGE = b"<!DOCTYPE html>\n<html><body>Please log in to the network of Hotel Sunshine</body></html>"


@pytest.fixture
def pauses():
    """The seconds of all waits; they pass at once."""
    return []


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(site, web, want, pauses, status):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.says(status), site.says(status))
    fetch(web, wanted, silent, pauses.append)
    assert wanted.path.read_bytes() == CONTENT
    assert sum(pauses) == 1 + 2


def test_a_server_that_stays_in_trouble_is_given_up(site, web, want, tmp_path, pauses):
    site.always("/f", site.says(503, reason="Service Unavailable"))
    with pytest.raises(DownloadError, match=r"/f: the server says 503 Service Unavailable, 6 times in a row; what has"):
        fetch(web, want(f"{site.url}/f"), silent, pauses.append)
    assert len(site.asked) == TRIES
    assert sum(pauses) == 1 + 2 + 4 + 8 + 16
    assert names(tmp_path) == []


def test_every_new_byte_starts_the_count_of_tries_anew(site, web, want, pauses):
    wanted = want(site.put("/f", CONTENT))
    for _ in range(3):
        site.plan("/f", *[site.says(500)] * (TRIES - 2), site.serves(stop=70_000))
    fetch(web, wanted, silent, pauses.append)
    assert wanted.path.read_bytes() == CONTENT


def test_a_server_that_breaks_always_at_the_same_place_is_given_up(site, web, want, pauses):
    site.put("/f", CONTENT)
    site.always("/f", site.serves(stop=70_000, part=False))
    with pytest.raises(DownloadError, match="6 times in a row"):
        fetch(web, want(f"{site.url}/f"), silent, pauses.append)
    assert len(site.asked) <= TRIES + 1


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("86400", LONGEST_WAIT, LONGEST_WAIT),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("soon", 1, 1),
    ],
)
def test_a_server_may_say_how_long_to_wait(site, web, want, pauses, asked, least, most):
    site.put("/f", CONTENT)
    site.plan("/f", site.says(429, Retry_After=asked))
    fetch(web, want(f"{site.url}/f"), silent, pauses.append)
    assert least <= sum(pauses) <= most


def test_a_server_may_say_until_when_to_wait(site, web, want, pauses):
    site.put("/f", CONTENT)
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    site.plan("/f", site.says(429, Retry_After=then))
    fetch(web, want(f"{site.url}/f"), silent, pauses.append)
    assert 30 <= sum(pauses) <= 61


def test_waiting_is_told_second_by_second(site, web, want):
    heard = []
    site.put("/f", CONTENT)
    site.plan("/f", site.says(429, reason="Too Many Requests", Retry_After="3"))
    fetch(web, want(f"{site.url}/f"), heard.append, lambda seconds: None)
    waits = [(told.done, told.total, told.unit) for told in heard if "waiting" in told.task]
    assert waits == [(0, 3, "second"), (1, 3, "second"), (2, 3, "second"), (3, 3, "second")]
    assert heard[1].task == "weights.data-0: the server says 429 Too Many Requests; waiting"


def test_a_file_is_named_before_the_server_says_a_word(site, web, want):
    heard = []
    site.put("/f", CONTENT)
    fetch(web, want(f"{site.url}/f"), heard.append, lambda seconds: None)
    assert (heard[0].task, heard[0].done, heard[0].total) == ("weights.data-0", 0, None)


@pytest.mark.parametrize("stop", [0, 150_000])
def test_a_server_that_falls_silent_is_asked_for_the_rest(site, web, want, pauses, stop):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.serves(stop=stop, stall=True))
    fetch(web, wanted, silent, pauses.append)
    assert wanted.path.read_bytes() == CONTENT


def test_a_server_that_never_says_a_word_is_given_up(site, web, want, pauses):
    site.always("/f", lambda handler, site, stored: site.released.wait(0.4))
    web.timeout_seconds = 0.05
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 was silent for 0\.05 seconds, 6 times in a row"):
        fetch(web, want(f"{site.url}/f"), silent, pauses.append)


def test_fewer_bytes_than_announced_are_not_a_file(site, web, want, pauses):
    site.put("/f", CONTENT)
    site.always("/f", site.serves(length=len(CONTENT) + 10, part=False))
    wanted = want(f"{site.url}/f")
    with pytest.raises(DownloadError, match="times in a row"):
        fetch(web, wanted, silent, pauses.append)
    assert not wanted.path.exists()


def test_a_known_size_is_the_one_that_counts(site, web, want, tmp_path):
    url = site.put("/f", CONTENT)
    expected = r"/f: the server has 400,000 bytes, expected 400,004: not the released file"
    with pytest.raises(DownloadError, match=expected):
        fetch(web, want(url, size=len(CONTENT) + 4), silent)
    assert names(tmp_path) == []


def test_without_any_length_a_known_size_tells_that_something_is_missing(site, web, want, pauses):
    wanted = want(site.put("/f", CONTENT), size=len(CONTENT))
    site.plan("/f", site.serves(stop=150_000, length="none", without=("Content-Length",)))
    site.plan("/f", site.serves(length="none", without=("Content-Length",)))
    fetch(web, wanted, silent, pauses.append)
    assert wanted.path.read_bytes() == CONTENT


def endless(handler, site, stored):
    """No length, and zeros for ever."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    for _ in range(1000):
        handler.wfile.write(bytes(1 << 16))
        site.sent["/f"] += 1 << 16


def test_a_server_that_never_ends_is_stopped_at_the_known_size(site, web, want, tmp_path):
    site.always("/f", endless)
    with pytest.raises(DownloadError, match="/f: more than the 400,000 bytes came that were expected; stopped there"):
        fetch(web, want(f"{site.url}/f", size=len(CONTENT)), silent)
    assert names(tmp_path) == []
    assert site.sent["/f"] < 30_000_000


def test_a_small_file_of_unknown_size_has_a_limit_too(site, web, want, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("gpt2kit.hub.fetch", fromlist=["MOST_BYTES"]).MOST_BYTES, "text", 1_000_000)
    site.always("/f", endless)
    with pytest.raises(DownloadError, match="more than the 1,000,000 bytes"):
        fetch(web, want(f"{site.url}/f", name="config.json"), silent)
    assert names(tmp_path) == []


def test_a_file_that_is_announced_far_too_large_is_not_begun(site, web, want, tmp_path):
    site.put("/f", b"{}")
    site.plan("/f", site.serves(length=10**12))
    with pytest.raises(
        DownloadError, match=r"the server has 1,000,000,000,000 bytes; more than 16,000,000 are not taken"
    ):
        fetch(web, want(f"{site.url}/f", name="config.json"), silent)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["config.json", "model.ckpt.data-00000-of-00001", "merges.txt"])
def test_the_login_page_of_a_network_is_not_a_model(site, web, want, tmp_path, name):
    wanted = want(site.put("/f", PAGE), name=name, size=len(CONTENT))
    with pytest.raises(DownloadError, match=r"/f: a web page came instead of the file; is it the login page"):
        fetch(web, wanted, silent)
    assert names(tmp_path) == []


def test_a_packed_answer_that_nobody_asked_for_is_unpacked(site, web, want):
    content = b'{"n_layer": 2}' * 1
    wanted = want(site.put("/f", content), name="config.json")
    site.plan("/f", site.serves(packed=True))
    got = fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == content
    assert got.size == len(content)


def test_a_packed_answer_to_a_resume_is_begun_anew(site, web, want, pauses):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.serves(stop=200_000), site.serves(packed=True))
    fetch(web, wanted, silent, pauses.append)
    assert wanted.path.read_bytes() == CONTENT


def test_a_content_md5_of_azure_is_checked(site, web, want, tmp_path):
    url = site.put("/f", CONTENT, Content_MD5="AAAAAAAAAAAAAAAAAAAAAA==")
    with pytest.raises(DownloadError, match=r"its md5 is [0-9a-f]{32}, expected 0{32}"):
        fetch(web, want(url), silent)
    assert names(tmp_path) == []


def test_what_broke_for_good_goes_on_with_the_next_command(site, web, want, pauses):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.serves(stop=200_000), *[site.says(500)] * (TRIES - 1))
    with pytest.raises(DownloadError, match="what has come is kept, and the same command goes on from there"):
        fetch(web, wanted, silent, pauses.append)
    held = Partial(wanted.path).size()
    fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == CONTENT
    assert site.ranges()[-1] == f"bytes={held}-"
    assert held > 100_000
