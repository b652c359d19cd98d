"""One file, over servers that do what they promise: fetched once, resumed, verified."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from http.client import responses
from types import SimpleNamespace

import pytest

from gpt2kit.errors import DiskFull, DownloadError
from gpt2kit.hub.fetch import Refused, fetch
from gpt2kit.hub.partial import Partial
from gpt2kit.progress import silent

CONTENT = random.Random(1).randbytes(400_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = 200_000


def left_by_a_kill(wanted, promise, content=CONTENT[:HALF]):
    """What a killed download leaves."""
    partial = Partial(wanted.path)
    partial.begin(promise)
    with partial.appending() as file:
        file.write(content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_nothing_else_is_left(site, web, want, tmp_path):
    wanted = want(site.put("/f", CONTENT))
    got = fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == CONTENT
    assert (got.size, got.sha256) == (len(CONTENT), SHA256)
    assert names(tmp_path) == ["weights.data-0"]
    assert site.asked[0].headers["accept-encoding"] == "identity"


def test_progress_ends_with_all_bytes(site, web, want):
    heard = []
    fetch(web, want(site.put("/f", CONTENT)), heard.append)
    assert (heard[-1].task, heard[-1].done, heard[-1].total, heard[-1].unit) == (
        *("weights.data-0", len(CONTENT)),
        *(len(CONTENT), "byte"),
    )


def test_a_cut_connection_is_resumed_where_it_broke(site, web, want):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.serves(stop=100_000), site.serves(stop=50_000))
    fetch(web, wanted, silent, pause=lambda seconds: None)
    assert wanted.path.read_bytes() == CONTENT
    assert site.ranges()[0] is None
    assert site.asked[1].headers["if-range"] == site.files["/f"].headers["ETag"]
    assert site.sent["/f"] - len(CONTENT) < 3 * 65536  # at most what was under way when it broke


def test_what_a_kill_left_is_not_fetched_again(site, web, want):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.serves(stop=HALF))
    with pytest.raises(KeyboardInterrupt):
        fetch(web, wanted, silent, pause=interrupt)
    held = Partial(wanted.path).size()
    assert 0 < held <= HALF
    fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == CONTENT
    assert site.ranges() == [None, f"bytes={held}-"]


def interrupt(seconds):
    raise KeyboardInterrupt


def test_a_file_killed_before_its_renaming_is_not_asked_for(site, web, want):
    wanted = want(site.put("/f", CONTENT), size=len(CONTENT), sha256=SHA256)
    left_by_a_kill(wanted, wanted.known, CONTENT)
    fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == CONTENT
    assert site.asked == []


def test_a_file_that_changed_in_between_is_fetched_anew(site, web, want):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.serves(stop=HALF))
    with pytest.raises(KeyboardInterrupt):
        fetch(web, wanted, silent, pause=interrupt)
    site.put("/f", CONTENT[::-1])
    fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    "answer",
    [
        {"part": False},
        {"as_range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"},
        {"as_range": f"bytes {HALF}-{len(CONTENT)}/{len(CONTENT) + 1}"},
        {"as_range": "lines 3-4"},
    ],
    ids=["range ignored", "another range", "another size", "no range"],
)
def test_a_server_that_cannot_resume_sends_it_all_again(site, web, want, answer):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.serves(stop=HALF), site.serves(**answer))
    fetch(web, wanted, silent, pause=lambda seconds: None)
    assert wanted.path.read_bytes() == CONTENT


def test_a_range_that_is_refused_is_given_up(site, web, want):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.serves(stop=HALF), site.says(416, Content_Range="bytes */7"))
    fetch(web, wanted, silent, pause=lambda seconds: None)
    assert wanted.path.read_bytes() == CONTENT
    assert site.ranges()[2] is None


def test_without_a_validator_only_a_known_hash_allows_to_resume(site, web, want):
    for known, second in (({}, None), ({"sha256": SHA256}, "bytes=")):
        site.asked.clear()
        wanted = want(site.put("/f", CONTENT), name=f"f{len(known)}", **known)
        bare = {"without": ("ETag",)}
        site.plan("/f", site.serves(stop=HALF, **bare), site.serves(**bare))
        fetch(web, wanted, silent, pause=lambda seconds: None)
        assert wanted.path.read_bytes() == CONTENT
        assert (site.ranges()[1] or "None").startswith(str(second))
        assert "if-range" not in site.asked[1].headers


def test_pieces_that_do_not_fit_are_fetched_once_more_from_the_start(site, web, want):
    wanted = want(site.put("/f", CONTENT), sha256=SHA256)
    left_by_a_kill(wanted, wanted.known, bytes(HALF))
    fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == CONTENT
    assert site.ranges() == [f"bytes={HALF}-", None]


def test_wrong_bytes_are_not_kept(site, web, want, tmp_path):
    wanted = want(site.put("/f", CONTENT[::-1]), sha256=SHA256)
    with pytest.raises(
        DownloadError, match=rf"/f: what came is not the file: its sha256 is [0-9a-f]+, expected {SHA256}"
    ):
        fetch(web, wanted, silent)
    assert names(tmp_path) == []
    assert len(site.asked) == 1


def test_a_partial_file_longer_than_the_file_is_begun_anew(site, web, want):
    wanted = want(site.put("/f", CONTENT), size=len(CONTENT))
    left_by_a_kill(wanted, wanted.known, CONTENT + b"!")
    fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == CONTENT


def test_a_partial_file_that_is_a_link_is_not_followed(site, web, want, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    wanted = want(site.put("/f", CONTENT))
    (tmp_path / ".weights.data-0.partial").symlink_to(precious)
    fetch(web, wanted, silent)
    assert precious.read_bytes() == b"mine"
    assert wanted.path.read_bytes() == CONTENT
    assert not wanted.path.is_symlink()


def test_a_file_that_does_not_fit_the_disk_is_not_begun(site, web, want, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100_000))
    with pytest.raises(DiskFull, match=r"0\.1 MB are free, 0\.3 MB are missing; what has come \(0\.0 MB\) is kept"):
        fetch(web, want(site.put("/f", CONTENT)), silent)
    assert names(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
def test_a_disk_that_becomes_full_keeps_what_has_come(site, web, want, tmp_path):
    import resource

    wanted = want(site.put("/f", CONTENT))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, before[1]))
    try:
        with pytest.raises(DiskFull, match="the disk is full"):
            fetch(web, wanted, silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    held = Partial(wanted.path).size()
    assert HALF - 65536 <= held <= HALF
    fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == CONTENT
    assert site.ranges() == [None, f"bytes={held}-"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410])
def test_a_file_that_is_refused_leaves_nothing(site, web, want, tmp_path, status):
    site.always("/f", site.says(status, b"<html>no</html>", "\x1b[31mNo"))
    with pytest.raises(Refused, match=rf"/f: {status} {responses[status]}$") as refused:
        fetch(web, want(f"{site.url}/f"), silent)
    assert refused.value.status == status
    assert names(tmp_path) == []
    assert len(site.asked) == 1


PROGRAM = """
import sys
from pathlib import Path
from gpt2kit.hub.fetch import Wanted, fetch
from gpt2kit.hub.promise import Promise
from gpt2kit.hub.web import Web
from gpt2kit.progress import silent
url, place = sys.argv[1:]
fetch(Web(url), Wanted(url, Path(place), Promise(), "f"), silent)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_a_download_that_is_killed_goes_on_where_it_was(site, web, want):
    wanted = want(site.put("/f", CONTENT))
    site.plan("/f", site.serves(stop=HALF, stall=True))
    partial = wanted.path.with_name(".weights.data-0.partial")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, wanted.url, str(wanted.path)])
    until = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size > 2 * 65536) and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait()
    held = partial.stat().st_size
    assert not wanted.path.exists()
    fetch(web, wanted, silent)
    assert wanted.path.read_bytes() == CONTENT
    assert site.ranges() == [None, f"bytes={held}-"]
    assert site.sent["/f"] <= len(CONTENT) + 65536
