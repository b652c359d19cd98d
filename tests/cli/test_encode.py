import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

END = "<|endoftext|>"
# The real command, noting its progress every 20,000 tokens instead of every 8 million.
NOTING_OFTEN = """
import sys
from gpt2kit.cli.main import main
from gpt2kit.data import pipeline
pipeline.JOURNAL_TOKENS = 20_000
sys.exit(main(sys.argv[1:]))
"""


def start_noting_often(*words):
    command = [sys.executable, "-c", NOTING_OFTEN, "encode", *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def noted(journal):
    """How many parcels are safe."""
    try:
        return json.loads(journal.read_bytes())["parcels"]
    except FileNotFoundError:
        return 0


def contents(place):
    return {path.name: path.read_bytes() for path in place.iterdir()} if place.is_dir() else place.read_bytes()


def hidden(here):
    return [path.name for path in here.iterdir() if path.name.startswith(".")]


@pytest.fixture
def prose(here):
    words = random.Random(0).choices(["the cat ", "床前明月光，", "sat\n", "on 1234 ", "  mats"], k=400_000)
    (here / "prose.txt").write_text("".join(words), encoding="utf-8")
    lines = (json.dumps({"text": f"line {number} of many"}) for number in range(30_000))
    (here / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return "prose.txt", "lines.jsonl"


def test_what_was_made_is_told_with_the_next_step(gpt2, here, model):
    (here / "a.txt").write_text("the cat", encoding="utf-8")
    status, out, _ = gpt2("encode", "a.txt", "-o", "out", "--model", model)
    lines = out.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines[:4]] == ["written", "tokens", "documents", "text"]
    assert "7 bytes" in lines[3]
    assert "MB/s" in lines[3]
    assert lines[-1] == f"to train on it: gpt2 finetune out --model {model}"
    status, out, _ = gpt2("encode", "a.txt", "-o", "out", "--model", model)
    assert (status, out.splitlines()[0]) == (0, "found       out, made of the same texts before")


def test_an_option_of_reading_is_an_option_of_the_command(gpt2, here, model):
    (here / "a.jsonl").write_text('{"body": "the cat"}\n', encoding="utf-8")
    assert gpt2("encode", "a.jsonl", "-o", "x.npz", "--model", model, "--field", "body", "--combine", 1)[0] == 0
    with np.load("x.npz") as made:
        assert made.files == ["arr_0"]
    (here / "options.toml").write_text('[reading]\nfield = "body"\n', encoding="utf-8")
    assert gpt2("encode", "a.jsonl", "-o", "y", "--model", model, "--config", "options.toml")[0] == 0


def test_a_chinese_text_of_windows_is_read_when_its_encoding_is_named(gpt2, here, model):
    (here / "a.txt").write_bytes("床前明月光".encode("gb18030"))
    (here / "b.txt").write_bytes("床前明月光".encode())
    status, _, err = gpt2("encode", "a.txt", "-o", "out", "--model", model)
    assert (status, err[:28]) == (1, "gpt2: a.txt: not UTF-8 at by")
    assert "--encoding" in err
    assert gpt2("encode", "a.txt", "-o", "out", "--model", model, "--encoding", "gb18030")[0] == 0
    assert gpt2("encode", "b.txt", "-o", "same", "--model", model)[0] == 0
    assert contents(here / "out")["00000.bin"] == contents(here / "same")["00000.bin"]
    status, _, err = gpt2("encode", "a.txt", "-o", "more", "--model", model, "--encoding", "gb18031")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("gpt2: encoding 'gb18031' is not known; known are utf-8, gb18030")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "gpt2: a.txt: the file is empty"),
        (b"a\0b", "gpt2: a.txt: looks binary (a zero byte at 1); expected UTF-8 text"),
        (b"ab\xff", "gpt2: a.txt: not UTF-8 at byte 2 (ff)"),
    ],
)
def test_a_text_that_cannot_be_used_is_one_line_and_status_1(gpt2, here, model, content, problem):
    (here / "a.txt").write_bytes(content)
    status, out, err = gpt2("encode", "a.txt", "-o", "out", "--model", model)
    assert (status, out) == (1, "")
    assert err.startswith(problem)
    assert err.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["a.txt"]


@pytest.mark.filterwarnings("default:.*not UTF-8")
def test_what_is_not_utf8_can_be_replaced(gpt2, here, model):
    (here / "a.txt").write_bytes(b"ab\xff")
    status, _, err = gpt2("encode", "a.txt", "-o", "out", "--model", model, "--invalid-utf8", "replace")
    assert status == 0
    assert "gpt2: warning: a.txt: not UTF-8 in 1 places, the first at byte 2" in err


@pytest.mark.slow
def test_standard_input_is_encoded_like_a_file(here, model):
    text = "床前明月光\n" * 100_000
    (here / "a.txt").write_text(text, encoding="utf-8", newline="")
    for words, given in ((["a.txt", "-o", "file"], b""), (["-", "-o", "piped"], text.encode())):
        command = [sys.executable, "-m", "gpt2kit", "encode", *words, "--model", model]
        assert subprocess.run(command, input=given, capture_output=True, check=False).returncode == 0
    ours, theirs = contents(here / "piped"), contents(here / "file")
    assert ours["00000.bin"] == theirs["00000.bin"]


@pytest.mark.slow
@pytest.mark.parametrize("output", ["out", "out.npz"])
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_and_started_again_it_makes_the_same_bytes(here, model, prose, output, seed):
    """Killed with no warning at instants that chance chooses, three times."""
    words = [*prose, "--model", model, "--workers", 2]
    assert start_noting_often(*words, "-o", f"calm-{output}").wait() == 0
    chance, notes = random.Random(seed), [0]
    for _ in range(3):
        process, journal = start_noting_often(*words, "-o", output), here / f".{output}.partial" / "journal.json"
        wanted = notes[-1] + chance.randint(1, 2)
        while noted(journal) < wanted and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)
        process.kill()
        assert b"anew" not in process.communicate()[1]
        notes.append(noted(journal))
    assert not (here / output).exists()
    assert notes == sorted(set(notes)), "each time it goes on from where it was"
    assert start_noting_often(*words, "-o", output).wait() == 0
    assert contents(here / output) == contents(here / f"calm-{output}")
    assert hidden(here) == []


@pytest.fixture
def half_done(here, model, prose):
    """Standard input that was encoded in part when the process was killed."""
    text, journal = (here / prose[0]).read_bytes(), here / ".out.partial" / "journal.json"
    command = [sys.executable, "-c", NOTING_OFTEN, "encode", "-", "-o", "out", "--model", model]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.stdin.write(text)
    process.stdin.flush()
    while not journal.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.communicate()
    return command, text


@pytest.mark.slow
def test_standard_input_given_again_goes_on(here, half_done):
    command, text = half_done
    assert subprocess.run(command, input=text, capture_output=True, check=False).returncode == 0
    ours = contents(here / "out")
    calm = [word if word != "out" else "calm" for word in command]
    assert subprocess.run(calm, input=text, capture_output=True, check=False).returncode == 0
    assert ours == contents(here / "calm")


@pytest.mark.slow
def test_another_standard_input_is_refused_and_the_next_starts_anew(here, half_done):
    command, text = half_done
    refused = subprocess.run(command, input=b"X" + text, capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"gpt2: the inputs are not what they were when the work was interrupted" in refused.stderr
    assert hidden(here) == []
    assert subprocess.run(command, input=b"X" + text, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_ctrl_c_leaves_the_work_to_go_on_with(here, model, prose):
    process, journal = start_noting_often(*prose, "--model", model, "-o", "out"), here / ".out.partial" / "journal.json"
    while not journal.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err.splitlines()[-1]) == (130, b"stopped; the same command goes on from here")
    assert noted(journal)


@pytest.fixture
def killed(here, model, prose):
    """The words of a command that was killed half-way."""
    words = [*prose, "--model", model, "-o", "out"]
    process, journal = start_noting_often(*words), here / ".out.partial" / "journal.json"
    while not journal.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.communicate()
    return words


def assert_made_as_if_undisturbed(here, words):
    assert hidden(here) == []
    assert start_noting_often(*words, "-o", "calm").wait() == 0
    assert contents(here / "out") == contents(here / "calm")


@pytest.mark.slow
def test_started_again_with_other_texts_it_starts_anew(here, killed):
    with (here / "prose.txt").open("ab") as file:
        file.write(b"more")
    process = start_noting_often(*killed)
    problem = b"warning: the inputs have changed, such as prose.txt since the work was interrupted; starting anew"
    assert problem in process.communicate()[1]
    assert_made_as_if_undisturbed(here, killed)


@pytest.mark.slow
def test_started_again_with_other_options_and_killed_at_once_it_starts_anew(here, killed):
    """What the first left must not be taken for what the second made."""
    others, recipe = [*killed, "--separator", ""], here / ".out.partial" / "recipe.json"
    before, process = recipe.read_bytes(), start_noting_often(*others)
    while recipe.read_bytes() == before:
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert start_noting_often(*others).wait() == 0
    assert_made_as_if_undisturbed(here, others)


@pytest.mark.slow
def test_text_that_changed_under_the_same_date_is_noticed(here, killed):
    status = (here / "prose.txt").stat()
    with (here / "prose.txt").open("r+b") as file:
        file.write(b"X")
    os.utime("prose.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    problem = b"the inputs are not what they were when the work was interrupted; starting anew"
    assert problem in start_noting_often(*killed).communicate()[1]
    assert_made_as_if_undisturbed(here, killed)


@pytest.mark.slow
def test_half_of_the_work_lost_is_done_again(here, killed):
    (here / ".out.partial" / "shards" / "00000.bin").write_bytes(b"")
    assert start_noting_often(*killed).wait() == 0
    assert_made_as_if_undisturbed(here, killed)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_text(here, model):
    """Twelve times the text, in one line, may take a fifth more memory: 96 MB against 8 MB."""
    peaks = {}
    for megabytes in (8, 96):
        with (here / "line.txt").open("wb") as file:
            for _ in range(megabytes):
                file.write(b"the cat sat " * 87_382)
        command = [sys.executable, "-m", "gpt2kit", "encode", "line.txt", "-o", f"out{megabytes}", "--model", model]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peaks[megabytes] = 0
        while process.poll() is None:
            peaks[megabytes] = max(peaks[megabytes], pss_megabytes(process.pid))
            time.sleep(0.01)
        assert process.returncode == 0
    assert peaks[96] < 1.2 * peaks[8] + 10
    assert peaks[96] < 250


def pss_megabytes(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1000
    except (OSError, StopIteration):
        return 0
