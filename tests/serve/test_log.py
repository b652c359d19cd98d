"""No key and no text of a caller's is ever in the log or on the terminal, whatever becomes of the request."""

import json
import logging
from urllib.parse import urlencode

import pytest

pytestmark = pytest.mark.slow  # real servers, threads and clocks

RIGHT, WRONG, PROMPT = "sk-right-9f8e7d6c", "sk-wrong-5b4a3f2e", "My diary, page one"
KEYS = (RIGHT, WRONG)
HEADERS = [
    *({"Authorization": f"Bearer {key}"} for key in KEYS),
    *({"X-Api-Key": key} for key in KEYS),
    {"Authorization": WRONG},
    {"Authorization": f"Basic {RIGHT}"},
]
BODIES = [
    {"prompt": PROMPT, "max_tokens": 2},
    {"prompt": PROMPT, "max_tokens": 2, "stream": True},
    {"prompt": PROMPT, "model": "other"},
    {"prompt": {PROMPT: RIGHT}},
    {"prompt": PROMPT, "stop": [PROMPT, 5]},
    {"prompt": PROMPT * 20},
    {PROMPT: 1},
]


@pytest.fixture
def listen(serve, caplog, capfd):
    """Starts a server of which every logger tells all it can; and a function that tells what it has told."""

    def start(**options):
        server = serve(keys=[RIGHT], **options).until_ready()
        for name in [None, *logging.root.manager.loggerDict]:
            caplog.set_level(logging.DEBUG, name)
        return server

    def told():
        return "".join([caplog.text, *map(str, [vars(record) for record in caplog.records]), *capfd.readouterr()])

    start.told = told
    return start


def ask_everything(server):
    """The statuses of the answers."""
    statuses = set()
    for headers in HEADERS:
        for body in BODIES:
            statuses.add(server.ask("POST", "/v1/completions", body, headers)[0])
        statuses.add(server.ask("POST", "/generate", {"text": PROMPT}, headers)[0])
        statuses.add(server.ask("POST", "/nowhere", {"prompt": PROMPT}, headers)[0])
    return statuses | {send_form(server, key) for key in KEYS}


def send_form(server, key):
    connection = server.connect("GET", "/livez")
    connection.getresponse().read()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/", urlencode({"seed": PROMPT, "key": key}), form)
    status = connection.getresponse().status
    connection.close()
    return status


def assert_silent(told):
    for secret in (*KEYS, PROMPT, urlencode({"": PROMPT})[1:], json.dumps(PROMPT)):
        assert secret not in told


def test_answers_and_refusals_leave_no_key_and_no_prompt_in_the_log(listen, counting):
    server = listen(engine=counting())
    assert ask_everything(server) == {200, 400, 401, 404}
    logging.getLogger("gpt2kit.test").debug("the log is heard")
    told = listen.told()
    assert "the log is heard" in told
    assert_silent(told)


def test_nor_does_a_fault_of_the_engine(listen, counting):
    server = listen(engine=counting(fault=ZeroDivisionError("a bit flipped")))
    assert 503 in ask_everything(server)
    told = listen.told()
    assert "ZeroDivisionError: a bit flipped" in told
    assert_silent(told)


def test_nor_does_a_fault_of_a_route(listen, counting):
    server = listen(engine=counting())

    async def fails(asked: dict):
        raise ZeroDivisionError("a bit flipped")

    server.app.add_api_route("/fails", fails, methods=["POST"])
    headers = {"Authorization": f"Bearer {RIGHT}"}
    assert server.ask("POST", "/fails", {"prompt": PROMPT}, headers)[0] == 500
    told = listen.told()
    assert "ZeroDivisionError: a bit flipped" in told
    assert_silent(told)
