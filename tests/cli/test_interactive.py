import io
import os
import re
import select
import stat
import subprocess
import sys
from contextlib import suppress

import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.jobs.load import load

SEEDED = ("--seed", "7", "--max-new-tokens", "8", "--ignore-end")
ON_A_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches this process
from gpt2kit.cli.main import main
sys.exit(main())
"""


@pytest.fixture
def interactive(gpt2, model, monkeypatch):
    """gpt2 interactive on the golden model and the reference engine, with these bytes on standard input."""

    def run(*words, typed=b""):
        with io.TextIOWrapper(io.BytesIO(typed), encoding="ascii") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            return gpt2("interactive", *words, "--model", model, "--engine", "reference")

    return run


@pytest.fixture
def texts(model):
    """What the Python API writes for seed 7."""

    def texts(prompt, samples=1, chain="standard", tokens=8):
        with load(model, engine="reference") as generator:
            sampling = SamplingConfig(seed=7, chain=chain)
            stop = StopConfig(max_new_tokens=tokens, ignore_end=True)
            found = generator.generate(prompt, samples=samples, sampling=sampling, stop=stop)
        return [completion.text for completion in found]

    return texts


# --- where nobody types ---


def test_lines_from_a_pipe_are_continued_without_prompts(interactive, texts):
    (answer,) = texts("The cat")
    assert interactive(*SEEDED, typed=b"The cat\n") == (0, f"{answer}\n", "")
    assert interactive(*SEEDED, typed=b"The cat") == (0, f"{answer}\n", "")


def test_nothing_at_all_is_no_error(interactive):
    assert interactive() == (0, "", "")


def test_a_pipe_is_utf_8_whatever_the_locale(interactive, texts):
    for mark in (b"", b"\xef\xbb\xbf"):
        assert interactive(*SEEDED, typed=mark + "猫\r\n".encode())[1] == f"{texts('猫')[0]}\n"


def test_a_pipe_that_is_no_text_is_refused(interactive):
    status, _, err = interactive(typed=b"\xff\xfe\n")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("gpt2: standard input is not UTF-8")


def test_where_nobody_can_type_there_is_nothing_to_do(gpt2, model, monkeypatch):
    """As after `<&-` in a shell."""
    monkeypatch.setattr(sys, "stdin", None)
    status, _, err = gpt2("interactive", "--model", model, "--engine", "reference")
    assert (status, err) == (1, "gpt2: standard input is closed; there is nobody to talk to\n")


def test_length_is_max_new_tokens_and_wins(interactive, texts):
    words = (*SEEDED, "--max-new-tokens", "20", "--length", "5")
    assert interactive(*words, typed=b"The cat\n")[1] == f"{texts('The cat', tokens=5)[0]}\n"


@pytest.mark.parametrize("length", [0, -1])
def test_no_length_at_all_is_refused(interactive, length):
    status, _, err = interactive("--length", length)
    assert (status, err) == (1, f"gpt2: length must be 1 or more, got {length}\n")


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(model):
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2kit", "interactive", "--model", model, "--engine", "reference", *SEEDED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    process.stdin.write(b"The cat\n" * 20)
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


# --- classic: what openai/gpt-2's src/interactive_conditional_samples.py prints ---

PROMPT = "Model prompt >>> "


def group(texts):
    samples = (f"{'=' * 40} SAMPLE {number} {'=' * 40}\n{text}\n" for number, text in enumerate(texts, 1))
    return "".join(samples) + "=" * 80 + "\n"


def test_classic_answers_a_prompt_and_asks_again(interactive, texts):
    status, out, err = interactive("--classic", "--length", "8", "--seed", "7", typed=b"The cat\n")
    assert (status, err) == (0, "")
    assert out == PROMPT + group(texts("The cat", chain="openai")) + PROMPT + "\n"


def test_classic_refuses_an_empty_prompt_but_not_a_blank(interactive, texts):
    _, out, _ = interactive("--classic", "--length", "8", "--seed", "7", typed=b"\n\n \n")
    asked = f"{PROMPT}Prompt should not be empty!\n" * 2 + PROMPT
    assert out == asked + group(texts(" ", chain="openai")) + PROMPT + "\n"


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_classic_numbers_the_samples_from_1_whatever_the_batch(interactive, texts, batch_size):
    words = ("--classic", "--length", "8", "--seed", "7", "--nsamples", "4", "--batch-size", batch_size)
    _, out, _ = interactive(*words, typed=b"The cat\n")
    assert out == PROMPT + group(texts("The cat", 4, chain="openai")) + PROMPT + "\n"


def test_classic_prompts_stand_for_themselves_and_the_seed_goes_on(interactive, texts):
    """As there, a seed fixes the whole conversation: the same prompt again gets other samples."""
    words = ("--classic", "--length", "8", "--seed", "7", "--nsamples", "2")
    _, out, _ = interactive(*words, typed=b"The cat\nThe cat\n")
    written = texts("The cat", 4, chain="openai")
    assert out == PROMPT + group(written[:2]) + PROMPT + group(written[2:]) + PROMPT + "\n"


def test_classic_writes_half_a_window_and_never_stops_at_the_end_token(interactive, model):
    """The window is 56."""
    with load(model, engine="reference") as generator:
        end = generator.tokenizer.end_id
    forced = [word for _ in range(28) for word in ("--forced-ids", end)]
    _, out, _ = interactive("--classic", *forced, typed=b"The cat\n")
    assert out == PROMPT + group(["<|endoftext|>" * 28]) + PROMPT + "\n"


def test_classic_goes_beyond_the_window_with_its_prompt(interactive):
    """There it crashed."""
    status, out, err = interactive("--classic", "--length", "56", "--top-k", "1", typed=b"The cat\n")
    assert (status, err) == (0, "")
    assert out.endswith("=" * 80 + "\n" + PROMPT + "\n")


@pytest.mark.parametrize("chain", ["openai", "gpt2-ml"])
def test_classic_takes_the_chain_that_is_named(interactive, texts, chain):
    _, out, _ = interactive("--classic", "--length", "8", "--seed", "7", "--chain", chain, typed=b"The cat\n")
    assert out == PROMPT + group(texts("The cat", chain=chain)) + PROMPT + "\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--classic", "--length", "57"), "Can't get samples longer than window size: 56"),
        (
            ("--classic", "--nsamples", "3", "--batch-size", "2"),
            "nsamples must be a multiple of batch_size, got 3 and 2",
        ),
        (("--classic", "--nsamples", "0"), "nsamples and batch_size must be 1 or more, got 0 and 1"),
        (("--classic", "--batch-size", "0"), "nsamples and batch_size must be 1 or more, got 1 and 0"),
        (("--nsamples", "2"), "nsamples and batch_size are for --classic; /retry gives other answers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_one_line_and_status_1(interactive, words, problem):
    assert interactive(*words, typed=b"The cat\n") == (1, "", f"gpt2: {problem}\n")


# --- on a terminal ---


class Terminal:
    """gpt2 interactive on a terminal of its own."""

    def __init__(self, here, words, **environment):
        self._master, slave = os.openpty()
        self._shown = b""
        self._process = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL, "interactive", *words],
            cwd=here,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb", "XDG_STATE_HOME": str(here), **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    @property
    def screen(self):
        """What came since the last keys."""
        return self._shown.decode(errors="replace").replace("\r\n", "\n")

    def type(self, keys):
        self._shown = b""
        os.write(self._master, keys)

    def wait_for(self, pattern):
        """Read until the screen matches. Returns the match."""
        while not (found := re.search(pattern, self.screen, re.DOTALL)):
            assert select.select([self._master], [], [], 30)[0], f"{pattern} is not in {self.screen!r}"
            self._shown += os.read(self._master, 65536)
        return found

    def interrupt_until(self, pattern):
        """Press Ctrl-C, again after a second: between two keys Python overlooks a signal until the next."""
        for _ in range(30):
            self.type(b"\x03")
            while select.select([self._master], [], [], 1)[0]:
                self._shown += os.read(self._master, 65536)
                if re.search(pattern, self.screen, re.DOTALL):
                    return
        raise AssertionError(f"{pattern} is not in {self.screen!r}")

    def status(self):
        """Its exit status, once the rest is read."""
        with suppress(OSError):  # how Linux says that nobody is left at the other end
            while some := os.read(self._master, 65536):
                self._shown += some
        return self._process.wait(timeout=30)

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(here, model):
    pytest.importorskip("termios", reason="Windows has no pseudo-terminals")
    opened = []

    def open_terminal(*words, **environment):
        opened.append(
            Terminal(here, [*words, "--model", model, "--engine", "reference", "--temperature", "0"], **environment)
        )
        opened[-1].wait_for(">>> ")
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


ENDLESS = ("--ignore-end", "--max-new-tokens", "1000000")


@pytest.mark.slow
def test_a_terminal_sees_an_answer_grow_and_ctrl_c_stops_it(terminal):
    talk = terminal(*ENDLESS)
    talk.type(b"The cat\r")
    early = talk.wait_for("The cat\n.{20}").end()
    talk.wait_for(f".{{{early + 100}}}")
    assert ">>> " not in talk.screen
    talk.type(b"\x03")
    written = talk.wait_for("(.*)>>> ")[1]
    assert "leaves" not in written
    talk.type(b"/text\r")
    assert talk.wait_for("/text\n(.*)\n>>> ")[1].startswith("The cat")
    talk.type(b"\x04")
    assert talk.status() == 0
    assert talk.screen.endswith("\n")


@pytest.mark.slow
def test_ctrl_c_at_the_prompt_drops_the_line_and_ctrl_d_leaves(terminal):
    talk = terminal("--max-new-tokens", "1")
    talk.type(b"dropped")
    talk.wait_for("dropped")
    talk.interrupt_until("leaves.*>>> ")
    talk.type(b"/text\r")
    assert "dropped" not in talk.wait_for("/text\n(.*)>>> ")[1]
    talk.type(b"\x04")
    assert talk.status() == 0
    assert "Traceback" not in talk.screen


@pytest.mark.slow
def test_the_arrow_key_brings_back_lines_of_an_earlier_start(terminal, here):
    pytest.importorskip("readline")
    first = terminal("--max-new-tokens", "1")
    first.type(b"/save one.txt\r")
    first.wait_for("saved.*>>> ")
    first.type(b"/quit\r")
    assert first.status() == 0
    assert stat.S_IMODE((here / "gpt2kit" / "history").stat().st_mode) == 0o600
    second = terminal("--max-new-tokens", "1")
    second.type(b"\x1b[A\x1b[A")
    second.wait_for(r"save one\.txt")
    second.type(b"\r")
    second.wait_for(r"one\.txt exists")


@pytest.mark.slow
def test_where_no_history_can_be_kept_there_is_none(terminal, here):
    (here / "file").touch()
    talk = terminal("--max-new-tokens", "1", XDG_STATE_HOME=str(here / "file"))
    talk.type(b"\x04")
    assert talk.status() == 0
    assert talk.screen.strip("\n") == ""


@pytest.mark.slow
def test_a_wrong_key_is_a_strange_character_not_the_end(terminal):
    talk = terminal("--max-new-tokens", "1")
    talk.type(b"//a\xffb\r")
    talk.wait_for("\n.*>>> ")
    talk.type(b"/text\r")
    talk.wait_for("/a\ufffdb")


@pytest.mark.slow
def test_classic_on_a_terminal_ends_with_ctrl_d(terminal):
    """There it ended with a traceback."""
    talk = terminal("--classic", "--length", "4")
    talk.type(b"The cat\r")
    talk.wait_for(f"{'=' * 80}\n{PROMPT}$")
    talk.type(b"\x04")
    assert talk.status() == 0
    assert talk.screen == "\n"
