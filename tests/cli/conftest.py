import os
import subprocess
import sys

import pytest

from gpt2kit.cli.main import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of our own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def model(golden):
    """The directory of a model with 320 tokens and a window of 56."""
    return str(golden / "hf-safetensors")


@pytest.fixture
def gpt2(capsys):
    """Run a command line in this process. Returns its status, standard output and standard error."""

    def run(*words):
        try:
            status = main(list(map(str, words)))
        except SystemExit as stop:  # how a command line that cannot be parsed, or --help, ends
            status = stop.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def start(here):
    """Start a command line in a process of its own, on one thread, in a locale of one's choice."""
    started = []

    def go(*words, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "gpt2kit", *map(str, words)],
            cwd=here,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.communicate()
