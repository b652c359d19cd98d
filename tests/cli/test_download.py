import signal
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from shutil import copytree

import pytest


class Silent(SimpleHTTPRequestHandler):
    """Static files; those in `slow/` come up to their half, and then nothing."""

    def log_message(self, *_):
        pass

    def copyfile(self, source, output):
        if "/slow/" not in self.path or not self.path.endswith(".safetensors"):
            return super().copyfile(source, output)
        output.write(source.read(200_000))
        output.flush()
        self.server.halfway.set()
        self.server.released.wait(20)


@pytest.fixture
def mirror(tmp_path_factory, golden, monkeypatch):
    """A mirror of the hub; its address is in the environment."""
    root = tmp_path_factory.mktemp("mirror")
    for name in ("openai-community/gpt2", "some/model", "some/slow"):
        copytree(golden / "hf-safetensors", root / name / "resolve" / "main")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=root))
    server.halfway, server.released = threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def test_models_are_fetched_and_the_next_command_is_named(gpt2, mirror, here):
    status, out, err = gpt2("download", "gpt2", "hf:some/model")
    assert status == 0
    assert out.splitlines() == [
        "models/gpt2: 8 files, 0.3 MB, checked",
        "models/some/model: 8 files, 0.3 MB, checked",
        "",
        "to write with it: gpt2 generate --model gpt2",
    ]
    assert "hf:some/model/model.safetensors 300.9/300.9 kB" in err
    assert (here / "models" / "some" / "model" / "model.safetensors").is_file()


def test_what_was_fetched_answers_to_its_name(gpt2, mirror):
    gpt2("download", "gpt2", "hf:some/model")
    for name in ("gpt2", "hf:some/model"):
        assert gpt2("inspect", name)[0] == 0


def test_a_second_time_says_that_all_is_there(gpt2, mirror, monkeypatch):
    gpt2("download", "gpt2")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    status, out, err = gpt2("download", "gpt2")
    assert (status, err) == (0, "")
    assert out.startswith("models/gpt2: 8 files, 0.3 MB, all there; nothing fetched\n")


def test_another_directory_is_named_in_the_next_command(gpt2, mirror, here):
    out = gpt2("download", "gpt2", "--models-dir", "elsewhere")[1]
    assert out.endswith("to write with it: gpt2 generate --model elsewhere/gpt2\n")
    assert not (here / "models").exists()


def test_all_names_are_checked_before_the_first_byte(gpt2, mirror, here):
    status, out, err = gpt2("download", "gpt2", "gpt2-mediun")
    assert (status, out) == (1, "")
    assert err == "gpt2: no model is called 'gpt2-mediun': did you mean 'gpt2-medium'?\n"
    assert not (here / "models").exists()


def test_without_a_name_it_asks_for_one(gpt2):
    assert gpt2("download") == (1, "", "gpt2: which model? Name it, such as: gpt2 download 124M\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_keeps_what_has_come(start, mirror, here):
    process = start("download", "hf:some/slow")
    assert mirror.halfway.wait(20)
    partial_file = here / "models" / "some" / "slow" / ".model.safetensors.partial"
    while not (partial_file.exists() and partial_file.stat().st_size > 100_000):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert err.decode().endswith("\nstopped; the same command goes on from here\n")
    assert partial_file.stat().st_size > 100_000
    assert not (here / "models" / "some" / "slow" / "model.safetensors").exists()
