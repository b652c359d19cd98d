"""gpt2 serve as it is typed: what it says when all is well, and when something is wrong with the words."""

import http.client
import json
import os
import re
import shutil
import signal
import socket

import pytest

SLOW = pytest.mark.slow  # starts a program


@pytest.fixture
def serve(start, model):
    """Starts a server of the golden model on the reference engine; the process, and what it says until it is ready."""

    def run(*words, **environment):
        process = start("serve", model, "--engine", "reference", "--port", 0, *words, **environment)
        said = ""
        while "gpt2: ready" not in said:
            line = process.stderr.readline().decode()
            assert line, f"it ended: {said}"
            said += line
        return process, said

    return run


def get(said, path="/v1/models", host="127.0.0.1", **headers):
    """Status and JSON of a path on the port that was told."""
    connection = http.client.HTTPConnection(host, int(re.search(r":(\d+)/", said)[1]), timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, json.load(answer)


def test_help_tells_every_option(gpt2):
    status, said, _ = gpt2("serve", "--help")
    assert status == 0
    for option in (
        "--host",
        "--port",
        "--api-key",
        "--api-key-file",
        "--memory",
        "--grace",
        "--queue",
        "--chat-template",
    ):
        assert option in said
    assert "usage: gpt2 serve [-h] [OPTIONS] [MODEL...]" in said


@pytest.mark.parametrize(
    ("words", "status", "problem"),
    [
        (["--port", "99999"], 1, "port must be 0 to 65535, got 99999"),
        (["--port", "x"], 2, "Error parsing --port"),
        (["--slots", "0"], 1, "slots must be 1 to 4,096, got 0"),
        (["--slotz", "3"], 2, "--slots"),
        (["--memory", "lots"], 1, "no size: 'lots'"),
        (["--memory", "1KB"], 1, "takes 0.5 MB of memory, and 0.0 MB may be used"),
        (["--memory", "0KB"], 1, "takes 0.5 MB of memory, and 0.0 MB may be used"),
        (["--host", "no-such-name.invalid"], 1, "no-such-name.invalid"),
        (["--host", "0.0.0.0"], 1, "--api-key, or let everyone in with --without-key"),
        (["--api-key", "two words"], 1, "a key is made of visible ASCII characters"),
        (["--api-key-file", "missing.txt"], 1, "missing.txt: the keys cannot be read"),
        (["--config", "missing.toml"], 1, "missing.toml: cannot be read"),
        (["--adapter", "missing"], 1, "missing: no adapter of PEFT, which is a directory with adapter_config.json"),
        (["--allow-origin", "example.org"], 1, "allow_origin is * or such as https://example.org"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(gpt2, model, words, status, problem):
    found, out, said = gpt2("serve", model, "--port", "0", *words)
    assert (found, out) == (status, "")
    assert problem in said
    assert "two words" not in said, "a key is never shown"
    assert status == 2 or said.count("\n") == 1


def test_an_adapter_of_one_model_among_several_is_named_with_it(gpt2, model):
    status, _, said = gpt2("serve", model, "124M", "--adapter", "poet")
    assert (status, said) == (1, "gpt2: --adapter is for one model, got 2; name each MODEL+DIRECTORY\n")


def test_without_any_model_the_next_step_is_told(gpt2):
    status, _, said = gpt2("serve")
    assert (status, said.count("\n")) == (1, 1)
    assert said.endswith("get it with: gpt2 download 124M\n")


def test_a_port_in_use_is_named_with_a_way_out(gpt2, model):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, _, said = gpt2("serve", model, "--port", port)
    assert (status, said.count("\n")) == (1, 1)
    assert f"port {port} of 127.0.0.1 is in use" in said


def test_a_setting_that_does_not_exist_is_found_in_a_file(gpt2, model, here):
    (here / "server.toml").write_text("[serving]\nslotz = 3\n", "utf-8")
    status, _, said = gpt2("serve", model, "--config", "server.toml")
    assert (status, said) == (1, "gpt2: server.toml, serving has no setting 'slotz'; did you mean 'slots'?\n")


@SLOW
def test_a_first_model_that_is_damaged_ends_in_one_line(start, model, here):
    """It opens, so that the server begins; only reading it all shows the damage."""
    shutil.copytree(model, here / "damaged")
    weights = here / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    process = start("serve", "damaged", "--engine", "reference", "--port", "0")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert re.fullmatch(r"(gpt2: serving .*\n)?gpt2: damaged/model\.safetensors: .*\n", said.decode())


@SLOW
def test_it_tells_a_link_and_ends_without_a_word(serve):
    process, said = serve()
    assert re.fullmatch(
        r"gpt2: serving hf-safetensors at http://127\.0\.0\.1:\d+/\ngpt2: ready \(reference, cpu\)\n", said
    )
    assert get(said)[1]["data"][0]["id"] == "hf-safetensors"
    process.send_signal(signal.SIGTERM)
    assert (process.wait(10), process.stderr.read(), process.stdout.read()) == (0, b"", b"")


@SLOW
def test_an_adapter_is_served_with_its_model(serve, golden):
    _, said = serve("--adapter", golden / "peft" / "c_attn")
    assert said.startswith("gpt2: serving hf-safetensors+c_attn at http")
    assert get(said)[1]["data"][0]["id"] == "hf-safetensors+c_attn"


@SLOW
def test_ctrl_c_ends_an_idle_server(serve):
    process, _ = serve()
    process.send_signal(signal.SIGINT)
    assert (process.wait(10), process.stderr.read()) == (130, b"\ngpt2: interrupted\n")


@SLOW
def test_the_environment_may_hold_the_key(serve):
    process, said = serve("--host", "0.0.0.0", GPT2KIT_API_KEY="sesame")
    assert re.search(r"at http://127\.0\.0\.1:\d+/ \(from other machines: http://[\w.-]+:\d+/\)", said)
    assert get(said)[0] == 401
    assert get(said, Authorization="Bearer sesame")[0] == 200
    process.send_signal(signal.SIGTERM)
    assert b"sesame" not in process.stderr.read()


@SLOW
def test_a_file_may_hold_all_settings(start, model, here):
    text = f'models = ["{model}"]\n[engine]\nengine = "reference"\n[serving]\nport = 0\nmax_n = 3\nqueue = 7\n'
    (here / "server.toml").write_text(text, "utf-8")
    process = start("serve", "--config", "server.toml", "--queue", "9")
    said = process.stderr.readline().decode()
    while b"ready" not in process.stderr.readline():
        pass
    limits = get(said, "/info")[1]["limits"]
    assert (limits["max_n"], limits["queue"]) == (3, 9)


@SLOW
@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")
def test_ipv6_is_an_address_like_others(serve):
    _, said = serve("--host", "::1")
    assert "at http://[::1]:" in said
    assert get(said, host="::1")[0] == 200
