"""What the page says while a server starts, is busy, refuses or fails: in words, where one looks, and with a way on."""

import contextlib
import re
import socket
import threading

import pytest
from playwright.sync_api import expect

from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import OutOfMemory

pytestmark = pytest.mark.browser

STORY = "The cat sat on the mat, and the dog lay by the door. Nobody said a word until the rain began to fall."
ONE_AT_A_TIME = ServingConfig(slots=1)


def write_greedily(desk, text="The cat"):
    desk.set(temperature=0, max_tokens=200)
    desk.type(text)
    desk.go.click()


def button(desk, name):
    return desk.status.get_by_role("button", name=name)


# --- a server that starts, or is busy ---


@pytest.fixture
def late(serve, counting):
    """A server that is reading its model until the event is set."""
    read = threading.Event()

    def open_engine(checkpoint, slots):
        assert read.wait(30), "a test left its model unread"
        return counting()(checkpoint, slots)

    yield serve(engine=open_engine), read
    read.set()


def test_a_server_that_still_loads_says_so_and_writes_once_it_is_ready(late, sit_at, complaints):
    server, read = late
    desk = sit_at(server)
    write_greedily(desk, "a")
    expect(desk.status).to_have_text(re.compile("still loads its model"))
    read.set()
    desk.wait()
    assert desk.model_text != ""
    complaints.clear()  # the browser tells every 503


def test_a_page_that_is_opened_while_the_server_loads_says_so_at_once(late, sit_at, complaints):
    server, read = late
    desk = sit_at(server)
    expect(desk.status).to_have_text(re.compile("still loads its model"))
    read.set()
    expect(desk.status).to_have_text("The server is ready.")
    complaints.clear()


def test_waiting_for_a_server_that_loads_can_be_stopped(late, sit_at, complaints):
    desk = sit_at(late[0])
    write_greedily(desk, "a")
    expect(desk.status).to_have_text(re.compile("still loads its model"))
    desk.press("Escape")
    expect(desk.go).to_have_text("Generate")
    assert desk.text == "a"
    complaints.clear()


def test_who_waits_in_line_is_told_how_many_are_before(dictate, sit_at):
    server = dictate(STORY, seconds=0.2, config=ONE_AT_A_TIME)
    desk = sit_at(server)
    with contextlib.ExitStack() as others:
        for _ in range(2):
            others.enter_context(contextlib.closing(server.begin(stream=True, max_tokens=500)))
        server.until(lambda: server.metric("texts_waiting") == 1)
        write_greedily(desk)
        expect(desk.status).to_have_text("Waiting in line: 1 before you.")
    server.pace.seconds = 0
    desk.wait()
    assert desk.text == STORY


def test_a_model_that_is_not_in_memory_is_loaded_and_the_page_says_so(serve, counting, make_model, sit_at):
    read = threading.Event()

    def open_engine(checkpoint, slots):
        assert checkpoint.origin == "first" or read.wait(30)
        return counting()(checkpoint, slots)

    desk = sit_at(serve(make_model("first"), make_model("second"), engine=open_engine).until_ready())
    desk.page.locator("#model").select_option("second")
    expect(desk.page.locator("#model-note")).to_have_text(re.compile("not in memory yet"))
    write_greedily(desk, "a")
    expect(desk.status).to_have_text("Loading the model second…")
    read.set()
    desk.wait()
    assert desk.model_text != ""
    expect(desk.page.locator("#model-note")).not_to_have_text(re.compile("not in memory yet"))


def test_a_full_queue_is_told_with_another_try(dictate, sit_at, complaints):
    server = dictate(STORY, seconds=0.2, config=ServingConfig(slots=1, queue=0))
    desk = sit_at(server)
    with contextlib.closing(server.begin(stream=True, max_tokens=500)):
        server.until(lambda: server.metric("texts_running") == 1)
        write_greedily(desk)
        expect(desk.status).to_have_text(re.compile("The server is busy: no more requests can wait"))
    server.until(lambda: server.metric("texts_running") == 0)
    server.pace.seconds = 0
    button(desk, "Try again").click()
    desk.wait()
    assert desk.text == STORY
    complaints.clear()  # the 429


# --- a server that fails ---


class Wire:
    """A line to a server that can be cut and mended."""

    def __init__(self, address):
        self.server, self.whole, self.ends = address, True, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        with contextlib.suppress(OSError):
            while near := self.listener.accept()[0]:
                if not self.whole:
                    near.close()
                    continue
                far = socket.create_connection(self.server)
                self.ends += [near, far]
                threading.Thread(target=self.carry, args=(near, far), daemon=True).start()
                threading.Thread(target=self.carry, args=(far, near), daemon=True).start()

    def carry(self, source, target):
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 16):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        self.whole = False
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        self.cut()


@pytest.fixture
def cuttable(dictate, sit_at):
    """A slow server, the wire to it, and a desk at its far end."""
    server = dictate(STORY, seconds=0.05)
    with contextlib.closing(Wire(server.address)) as wire:
        yield server, wire, sit_at("http://{}:{}/".format(*wire.address))


def test_a_lost_connection_keeps_the_text_and_another_try_writes_it_all(cuttable, complaints):
    server, wire, desk = cuttable
    write_greedily(desk)
    expect(desk.tokens.nth(3)).to_be_visible()
    wire.cut()
    expect(desk.status).to_have_text(re.compile("The connection to the server is lost. The text so far is kept."))
    expect(desk.figures).to_have_text(re.compile("cut off"))
    assert STORY.startswith(desk.text)
    assert desk.model_text != ""

    button(desk, "Try again").click()
    expect(desk.status).to_have_text(re.compile("The server cannot be reached"))
    wire.whole, server.pace.seconds = True, 0
    button(desk, "Try again").click()
    desk.wait()
    assert desk.text == STORY
    complaints.clear()  # of the network


def test_what_a_lost_connection_left_can_be_gone_on_from(cuttable, complaints):
    server, wire, desk = cuttable
    write_greedily(desk)
    expect(desk.tokens.nth(3)).to_be_visible()
    wire.cut()
    expect(desk.go).to_have_text("Generate")
    wire.whole, server.pace.seconds = True, 0
    desk.generate()
    assert desk.text == STORY
    complaints.clear()


def test_a_server_that_is_not_there_is_told_at_the_beginning(cuttable, complaints):
    desk = cuttable[2]
    desk.page.context.route("**/v1/models", lambda route: route.abort("connectionrefused"))
    desk.page.reload()
    expect(desk.status).to_have_text(re.compile("The server cannot be reached. Is it running?"))
    desk.page.context.unroute_all()
    button(desk, "Try again").click()
    expect(desk.page.locator("#model option")).to_have_text("dictating")
    desk.page.wait_for_load_state("networkidle")
    complaints.clear()


def test_a_fault_in_mid_stream_is_told_and_can_be_tried_again(dictate, sit_at):
    server = dictate(STORY, seconds=0.05)
    desk = sit_at(server)
    write_greedily(desk)
    expect(desk.tokens.nth(3)).to_be_visible()
    server.pace.fault = OutOfMemory("the memory of the device is used up")
    expect(desk.status).to_have_text(re.compile("The server is out of memory"))
    assert STORY.startswith(desk.text)
    assert desk.model_text != ""

    server.pace.fault, server.pace.seconds = None, 0
    button(desk, "Try again").click()
    desk.wait()
    assert desk.text == STORY


def test_a_dead_engine_is_told_and_the_text_is_kept(dictate, sit_at, complaints):
    server = dictate(STORY, seconds=0.05)
    desk = sit_at(server)
    write_greedily(desk)
    expect(desk.tokens.nth(3)).to_be_visible()
    server.pace.fault = RuntimeError("a bug")
    expect(desk.status).to_have_text(
        re.compile("The engine of the server has failed; the server must be started again")
    )
    assert STORY.startswith(desk.text)
    assert desk.model_text != ""
    button(desk, "Try again").click()
    expect(desk.status).to_have_text(re.compile("^The engine of the server has failed"))
    complaints.clear()


@pytest.mark.parametrize(("locale", "told"), [("en-US", "The server is stopping"), ("zh-CN", "服务器正在停止")])
def test_a_server_that_is_stopping_says_so(dictate, sit_at, complaints, locale, told):
    server = dictate(STORY)
    desk = sit_at(server, locale=locale)
    server.app.state.worker.drain()
    write_greedily(desk)
    expect(desk.status).to_have_text(re.compile(f"^{told}"))
    assert desk.text == "The cat"
    complaints.clear()


def test_a_server_that_ends_while_it_loads_is_told(late, sit_at, complaints):
    with contextlib.closing(Wire(late[0].address)) as wire:
        desk = sit_at("http://{}:{}/".format(*wire.address))
        write_greedily(desk, "a")
        expect(desk.status).to_have_text(re.compile("still loads its model"))
        wire.cut()
        expect(desk.status).to_have_text(re.compile("The server cannot be reached"))
    complaints.clear()


# --- a server that refuses ---


def test_a_text_that_is_too_large_is_refused_in_place_and_kept(dictate, sit_at, complaints):
    desk = sit_at(dictate(STORY, config=ServingConfig(max_body=5000)))
    desk.document.focus()
    desk.page.keyboard.insert_text("word " * 2000)
    desk.go.click()
    expect(desk.status).to_have_text(re.compile("5,000 bytes"))
    assert desk.text == "word " * 2000
    button(desk, "Dismiss").click()
    expect(desk.status).to_have_text("")
    complaints.clear()  # the 413


def test_what_the_server_refuses_in_a_setting_is_said_at_its_box(desk, complaints):
    desk.set(temperature=1000)
    desk.go.click()
    expect(desk.page.locator("#temperature-error")).to_have_text(re.compile("temperature must be"))
    expect(desk.page.locator("#temperature")).to_have_attribute("aria-invalid", "true")
    complaints.clear()  # the 400
    desk.set(temperature=0)
    expect(desk.page.locator("#temperature-error")).to_have_text("")
    desk.generate()
    assert desk.model_text != ""


def test_a_box_that_is_wrong_stops_the_request_and_has_the_focus(desk):
    desk.set(top_p="2")
    desk.go.click()
    expect(desk.status).to_have_text(re.compile("A setting is wrong"))
    expect(desk.page.locator("#top-p")).to_be_focused()
    expect(desk.page.locator("#top-p-error")).to_have_text("1 is the most.")
    assert desk.requests == []


def test_the_servers_limit_of_tokens_is_known_to_the_box(dictate, sit_at):
    desk = sit_at(dictate(STORY, config=ServingConfig(max_tokens=50)))
    expect(desk.page.locator("#max-tokens-error")).to_have_text("50 is the most.")


# --- a server with keys ---


@pytest.fixture
def locked(dictate):
    """A server that asks for the key "sesame"."""
    return dictate(STORY, keys=["sesame"])


def give_key(page, key, remember=False):
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_label("remember it in this browser").set_checked(remember)
    page.get_by_role("button", name="Use this key").click()


def write(page, text):
    page.locator("#temperature").fill("0")
    page.locator("#document").focus()
    page.keyboard.type(text)
    page.keyboard.press("Control+Enter")


def test_a_key_is_asked_for_in_place_a_wrong_one_told_and_the_right_one_used(locked, open_page, complaints):
    page = open_page(locked)
    status = page.locator("#status")
    expect(status).to_have_text(re.compile("This server asks for a key"))
    give_key(page, "poppy")
    expect(status).to_have_text(re.compile("The server does not take this key"))
    give_key(page, "sesame")
    expect(page.locator("#model option")).to_have_text("dictating")
    expect(page.locator("#key-form")).to_be_hidden()
    complaints.clear()  # the 401s
    write(page, "The cat")
    expect(page.locator("#document")).to_have_text(STORY)


def test_a_key_that_no_request_can_carry_is_wrong_and_locks_nobody_out(locked, open_page, complaints):
    page = open_page(locked)
    give_key(page, "芝麻", remember=True)
    expect(page.locator("#status")).to_have_text(re.compile("The server does not take this key"))
    page.reload()
    expect(page.locator("#status")).to_have_text(re.compile("The server does not take this key"))
    give_key(page, "sesame")
    expect(page.locator("#model option")).to_have_text("dictating")
    complaints.clear()


@pytest.mark.parametrize(("remember", "asked"), [(True, 0), (False, 1)])
def test_a_key_is_kept_only_if_that_is_asked_for(locked, open_page, complaints, remember, asked):
    page = open_page(locked)
    give_key(page, "sesame", remember)
    expect(page.locator("#model option")).to_have_text("dictating")
    complaints.clear()
    later = page.context.new_page()
    later.goto("")
    expect(later.locator("#status, #model option").filter(has_text=re.compile("a key|dictating"))).to_be_attached()
    assert later.locator("#key-form:visible").count() == asked
    complaints.clear()


def test_a_key_that_is_taken_away_is_asked_for_again_and_the_text_goes_on(locked, open_page, complaints):
    page = open_page(locked)
    give_key(page, "sesame")
    expect(page.locator("#model option")).to_have_text("dictating")
    page.evaluate("sessionStorage.setItem('gpt2kit.key', 'stale')")
    write(page, "The cat")
    expect(page.locator("#status")).to_have_text(re.compile("does not take this key"))
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    give_key(page, "sesame")
    expect(page.locator("#document")).to_have_text(STORY)
    complaints.clear()
