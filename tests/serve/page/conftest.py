"""A real browser before a real server. What the browser complains of fails the test, and asking another host too."""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import threading
from functools import partial
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.config.model import ModelConfig
from gpt2kit.config.serving import ServingConfig
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.serve import create_app
from gpt2kit.serve.server import Server
from gpt2kit.tokenizer.open import open_tokenizer

FLAGS = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
LOUDER = 8  # random weights of the usual size prefer no token; these do
PATIENCE_SECONDS = 20  # of a busy machine
# What a page writes as it is closed may reach the store after that was cleared; the next one clears it as it opens.
CLEAN = "if (window.name !== 'clean') { window.name = 'clean'; localStorage.clear(); }"


@pytest.fixture(scope="module")
def browser():
    """Chromium. Not for the whole session: while Playwright runs, other tests of this thread have no event loop."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        (pytest.fail if os.environ.get("GPT2KIT_REQUIRE_SHARED") == "1" else pytest.skip)("no chromium to be found")
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        flags = [f"--{flag}" for flag in FLAGS.split()]
        with contextlib.closing(playwright.chromium.launch(executable_path=chromium, args=flags)) as launched:
            yield launched


@pytest.fixture
def complaints():
    """What the browser complained of: errors, violations of the policy, dialogs, requests to other hosts.

    A test that provokes some looks at them and clears them: what is left at its end makes it fail.
    """
    found = []
    yield found
    assert found == []


class Profile:
    """A browser's profile, and what it complains of. `options` are Playwright's of a context."""

    def __init__(self, browser, url, options):
        self.complaints, self._address = [], urlsplit(url)
        self.context = browser.new_context(base_url=url, **{"locale": "en-US"} | options)
        self.context.set_default_timeout(PATIENCE_SECONDS * 1000)
        self.context.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self.context.on("dialog", self._note_dialog)
        self.context.on("request", self._note_strangers)
        self.page = self.context.new_page()

    def clean(self):
        """Make it as it was at first, but for its cache of files."""
        used, self.page = self.context.pages, self.context.new_page()
        for page in used:
            page.close()
        self.context.set_offline(False)
        self.context.unroute_all()
        self.context.clear_permissions()
        origin = f"{self._address.scheme}://{self._address.netloc}"
        chromium = self.context.new_cdp_session(self.page)
        chromium.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
        chromium.detach()
        self.page.add_init_script(CLEAN)

    def _note_dialog(self, dialog):
        if dialog.type != "beforeunload":  # which asks whether to leave a text that is being written
            self.complaints.append(f"{dialog.type}: {dialog.message}")
        dialog.accept()

    def _note_strangers(self, request):
        address = urlsplit(request.url)
        if address.scheme not in ("blob", "data") and address.netloc != self._address.netloc:
            self.complaints.append(f"asks {request.url}")


@pytest.fixture(scope="module")
def unused():
    """Profiles of the common server that no test uses now, by what they are for: a new one takes as long as a test."""
    profiles = {}
    yield profiles
    for profile in profiles.values():
        profile.context.close()


@pytest.fixture
def open_page(browser, unused, complaints, serve):
    """Opens a page of a server, an address or a Client, in a clean profile; `options` are Playwright's of a context.

    It asks for `serve` so that at the end pages are closed before their servers.
    """
    opened = []

    def start(server, path="", **options):
        url = server if isinstance(server, str) else "http://{}:{}/".format(*server.address)
        purpose = f"{url} {sorted(options.items())}"
        profile = unused.pop(purpose, None) or Profile(browser, url, options)
        profile.complaints = complaints
        opened.append((purpose, profile, isinstance(server, str) and "permissions" not in options))
        profile.page.goto(path)
        return profile.page

    yield start
    for purpose, profile, is_common in opened:
        if is_common and purpose not in unused:
            profile.clean()
            unused[purpose] = profile
        else:
            profile.context.close()


@pytest.fixture(scope="session")
def make_model(tiny_checkpoint):
    """A model of random weights with the golden vocabulary, which never ends its text by itself."""

    def make(name="roomy", window=512, seed=1):
        config = ModelConfig(
            vocab_size=tiny_checkpoint.config.vocab_size, window=window, width=32, layers=2, heads=4, inner_width=64
        )
        checkpoint = initial_checkpoint(config, tiny_checkpoint.tokenizer_files, seed)
        end = open_tokenizer(checkpoint.tokenizer_files, name).end_id
        tensors = {key: changed(tensor, partial(endless, key, end)) for key, tensor in checkpoint.tensors.items()}
        return dataclasses.replace(checkpoint, tensors=tensors, origin=name)

    return make


def changed(tensor, change):
    return LazyTensor(tensor.name, tensor.dtype, tensor.shape, lambda: change(tensor.load()))


def endless(key, end, weights):
    """Louder weights, with a logit of -80 for the token `end`: normalized values sum to nothing, the bias does not."""
    if key == "ln_f.bias":
        return weights + 0.02
    if "ln_" not in key:
        weights = weights * LOUDER
    if key == "wte.weight":
        weights[end] = -125
    return weights


@pytest.fixture(scope="session")
def server(make_model, golden):
    """The address of a server of two models: "roomy", with a window of 512, and the golden one, with 56."""
    app = create_app(make_model(), golden / "hf-safetensors", engine="reference")
    running = Server(app, ServingConfig(), lambda line: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        yield "http://{}:{}/".format(*listener.getsockname())
        running.should_exit = True
        thread.join()


class Dictating:
    """An engine whose likeliest text is a given one, from wherever the ids end in it, with plausible alternatives.

    It may pause before every step, wait for a gate, or fail with a fault that is set later.
    """

    exact_in_batches = True

    def __init__(self, config, slots, tokenizer, text, pace):
        self.config, self.slots, self.capacity = config, slots, slots * config.window
        self.dictated, self.pace = [*tokenizer.encode(text), tokenizer.end_id], pace
        self.ids = {}

    def step(self, rows):
        self.pace.wait()
        logits = [np.empty((0, self.config.vocab_size), np.float32)]
        for row in rows:
            ids = self.ids.setdefault(row.slot, [])
            wanted = {"none": 0, "last": 1, "all": len(row.ids)}[row.logits]
            ids.extend(row.ids)
            logits += [self.after(ids[: len(ids) - n])[None] for n in reversed(range(wanted))]
        return np.concatenate(logits)

    def after(self, ids):
        """Any draw of the position's own, sharper at some positions than at others, led by what is dictated."""
        draw = np.random.Generator(np.random.PCG64(len(ids)))
        logits_V = draw.standard_normal(self.config.vocab_size, np.float32) * draw.uniform(0.2, 3)
        known = max(n for n in range(len(self.dictated)) if ids[len(ids) - n :] == self.dictated[:n])
        logits_V[self.dictated[known]] = logits_V.max() + draw.uniform(0.1, 5)
        return logits_V

    def truncate(self, slot, length):
        self.ids[slot] = self.ids.get(slot, [])[:length]

    def share(self, source, target, length):
        self.ids[target] = self.ids[source][:length]

    def close(self):
        self.ids = {}


class Pace:
    """How a Dictating engine works, to be changed while it does."""

    def __init__(self, seconds):
        self.seconds, self.fault = seconds, None
        self.gate = threading.Event()
        self.gate.set()
        self.stop = threading.Event()

    def wait(self):
        assert self.gate.wait(30), "a test left its gate closed"
        self.stop.wait(self.seconds)
        if self.fault:
            raise self.fault


@pytest.fixture
def dictate(serve, make_model):
    """Starts a server that dictates a text; the client has a `pace`. `options` are those of `serve`."""

    def start(text, seconds=0.0, window=1024, **options):
        pace = Pace(seconds)

        def open_engine(checkpoint, slots):
            tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
            return Dictating(checkpoint.config, slots, tokenizer, text, pace)

        client = serve(make_model("dictating", window), engine=open_engine, **options).until_ready()
        client.pace = pace
        return client

    return start


class Desk:
    """The page for writing, as who sits before it uses it."""

    def __init__(self, page):
        self.page = page
        self.document = page.locator("#document")
        self.tokens = page.locator("#document .token")
        self.seen = page.locator("#document .token >> visible=true")  # a part of a character is not, nor a control
        self.go = page.locator("#go")
        self.status = page.locator("#status")
        self.figures = page.locator("#figures")
        self.popover = page.locator("#popover")
        self.requests = []
        page.on("request", self._note)
        expect(page.locator("#model option").first).to_be_attached()

    def _note(self, request):
        if request.url.endswith("/v1/completions"):
            self.requests.append(json.loads(request.post_data))

    @property
    def text(self):
        """All of the document."""
        return self.document.evaluate("element => element.textContent")

    @property
    def model_text(self):
        """What of it is the model's."""
        return "".join(self.tokens.all_text_contents())

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text):
        """Types at the end of the document, or at the caret if the document has the focus."""
        if not self.document.evaluate("element => element === document.activeElement"):
            self.document.focus()
            self.press("Control+End")
        self.page.keyboard.type(text)

    def caret_at(self, position):
        """Puts the caret after so many characters."""
        self.document.focus()
        self.press("Control+Home", *["ArrowRight"] * position)

    def set(self, **settings):
        """Fills boxes of the sampling panel, by their ids with underscores."""
        for name, value in settings.items():
            self.page.locator(f"#{name.replace('_', '-')}").fill(str(value))

    def generate(self, how=None):
        """Lets the model write, by the button or another action, and waits for the end."""
        (how or self.go.click)()
        self.wait()

    def wait(self):
        """Waits until nothing is being written."""
        expect(self.go).not_to_have_text("Stop")

    def ask(self, path="v1/completions", **body):
        """What the server answers to a JSON body, asked beside the page."""
        answer = self.page.request.post(path, data=body)
        assert answer.ok, answer.text()
        return answer.json()


@pytest.fixture
def sit_at(open_page):
    """A Desk at a page of a server; `path` may hold a link's hash, `options` are Playwright's."""
    return lambda server, path="", **options: Desk(open_page(server, path, **options))


@pytest.fixture
def desk(sit_at, server):
    """A Desk at the page of the common server, at temperature 0: greedy."""
    found = sit_at(server)
    found.set(temperature=0, top_k=0, top_p=1, max_tokens=20)
    return found
