import json
import os
import subprocess
import sys

import pytest

from gpt2kit.errors import DataError
from gpt2kit.jobs.journal import Journal

SETTINGS = {"top_k": 40, "stop": ("a", "b")}
TEXTS = {(1, 0): {"index": 1, "sample": 0, "text": "月\n"}, (0, 0): {"index": 0, "sample": 0, "text": "cat"}}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def part(tmp_path):
    return tmp_path / "out.jsonl.part"


@pytest.fixture
def finish(out):
    """Write down whichever of TEXTS are missing. Returns which were found, and the seed."""

    def go(settings=SETTINGS, seed=7):
        with Journal(out, settings, seed) as journal:
            found = set(journal.offsets)
            for place in TEXTS.keys() - found:
                journal.append(place, TEXTS[place])
            journal.end()
        return found, journal.seed

    return go


@pytest.fixture
def left(out, part):
    """The journal that a kill leaves when all texts are written down."""
    with Journal(out, SETTINGS, 7) as journal:
        for place, line in TEXTS.items():
            journal.append(place, line)
    return part.read_bytes()


def test_the_output_has_the_texts_in_their_order_and_nothing_is_beside_it(finish, out, tmp_path):
    finish()
    assert [json.loads(line) for line in out.read_bytes().splitlines()] == [TEXTS[0, 0], TEXTS[1, 0]]
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_cut_off_at_any_byte_it_keeps_every_whole_line_and_ends_the_same(finish, left, out, part):
    finish()
    whole = out.read_bytes()
    for length in range(len(left)):
        out.unlink()
        part.write_bytes(left[:length])
        kept = left[:length].count(b"\n")
        found, seed = finish(seed=8)
        assert (len(found), seed) == (max(kept - 1, 0), 7 if kept else 8)
        assert out.read_bytes() == whole


def test_a_journal_without_a_text_is_not_left_behind(out, tmp_path):
    with pytest.raises(KeyboardInterrupt), Journal(out, SETTINGS, 7):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"precious",
        b"precious\n",
        b'{"mine": 1}\n',
        b"[]\n",
        b"[" * 100_000 + b"\n",
        b"\xff\n",
        b'{"settings": [], "seed": 1}\n',
        b'{"settings": {}, "seed": "x"}\n',
        b'{"settings": {"top_k": 40, "stop": ["a", "b"]}, "seed": 7}\n{"index": "x", "sample": 0}\n',
        b'{"settings": {"top_k": 40, "stop": ["a", "b"]}, "seed": 7}\n{"index": 0}\n',
        b'{"settings": {"top_k": 40, "stop": ["a", "b"]}, "seed": 7}\n\n',
    ],
    ids=lambda content: str(content[:40]),
)
def test_a_file_that_is_no_journal_is_left_as_it_is(finish, part, content):
    part.write_bytes(content)
    with pytest.raises(DataError, match="not a line of ours"):
        finish()
    assert part.read_bytes() == content


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (SETTINGS | {"top_k": 3}, "top_k 40, now it is 3"),
        (SETTINGS | {"min_p": 0.5}, "min_p None, now it is 0.5"),
        ({"top_k": 40}, r"stop \['a', 'b'\], now it is None"),
    ],
    ids=["another value", "a setting of ours that it does not know", "a setting of a newer version"],
)
def test_other_settings_are_refused(finish, left, part, settings, told):
    with pytest.raises(DataError, match=told):
        finish(settings)
    assert part.read_bytes() == left


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link"])
def test_what_stands_in_the_place_of_the_output_is_not_touched(finish, out, kind):
    {"file": out.touch, "directory": out.mkdir, "dangling link": lambda: out.symlink_to("nowhere")}[kind]()
    before = out.lstat()
    with pytest.raises(DataError, match="is there already"):
        finish()
    assert out.lstat() == before


FILLS_THE_DISK = """
import resource, sys
from pathlib import Path
from gpt2kit.errors import DiskFull
from gpt2kit.jobs.journal import Journal

limit = int(sys.argv[2])
try:
    with Journal(Path(sys.argv[1]), {}, 7) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for index in range(9):
            journal.append((index, 0), {"index": index, "sample": 0, "text": "x" * 1000})
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        journal.end()
except DiskFull as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix system")
@pytest.mark.parametrize(("limit", "finished"), [(500, 0), (5000, 4), (20_000, 9)], ids=["first", "fifth", "the end"])
def test_a_full_disk_keeps_what_is_finished(tmp_path, out, limit, finished):
    """A file that may not grow is one; the last limit lets all texts be written, but not their copy in order."""
    command = [sys.executable, "-c", FILLS_THE_DISK, str(out), str(limit)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.stderr == ""
    assert f"{finished} finished texts are kept in {out}.part" in done.stdout
    assert not out.exists()
    with Journal(out, {}, 7) as journal:
        assert set(journal.offsets) == {(index, 0) for index in range(finished)}
