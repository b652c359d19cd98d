"""Servers on this machine that behave like the real ones, and misbehave when told to."""

import gzip
import hashlib
import re
import sys
import threading
from base64 import b64encode
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gpt2kit.hub.catalogue import KnownFile, KnownModel
from gpt2kit.hub.fetch import Wanted
from gpt2kit.hub.promise import Promise
from gpt2kit.hub.web import Web

CHANGED = "Fri, 27 Nov 2020 10:00:00 GMT"
LARGE = (".safetensors", ".bin", ".h5")


@dataclass
class Stored:
    """A file of a site."""

    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request that came."""

    path: str
    headers: dict[str, str]


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that go away."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Site:
    """A server that serves its files as RFC 9110 says, but for the acts that were planned for a path."""

    def __init__(self):
        self.files: dict[str, Stored] = {}
        self.asked: list[Asked] = []
        self.sent = defaultdict(int)  # bytes of bodies, by path
        self.plans = defaultdict(list)
        self.released = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement

            def do_GET(self):
                path = self.path.partition("?")[0]
                site.asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}))
                plan = site.plans[path]
                act = (
                    plan[0] if len(plan) == 1 and getattr(plan[0], "forever", False) else plan.pop(0) if plan else serve
                )
                try:
                    act(self, site, site.files.get(path))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def put(self, path, content, **headers):
        """Hold a file. Returns its address."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.files[path] = Stored(content, {"ETag": f'"{hashlib.md5(content).hexdigest()}"', **named})
        return self.url + path

    def plan(self, path, *acts):
        """The next requests for `path` get these answers, and later ones honest answers."""
        self.plans[path] += acts

    def always(self, path, act):
        """All requests for `path` get this answer."""
        act.forever = True
        self.plans[path] = [act]

    def ranges(self):
        """Of every request, what part of the file it asked for."""
        return [asked.headers.get("range") for asked in self.asked]

    @staticmethod
    def says(status, body=b"", reason=None, **headers):
        """An answer without a file."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return lambda handler, site, stored: send(handler, site, status, body, named, reason=reason)

    @staticmethod
    def serves(**how):
        """The file, but not as asked: stop, stall, length, part, as_range, extra, without, packed."""
        return lambda handler, site, stored: serve(handler, site, stored, **how)


def serve(
    handler, site, stored, *, stop=None, stall=False, length=None, part=True, as_range=None, without=(), packed=False
):
    """Answer with a file, or with the part that was asked for if the file is still the same.

    Args:
        stop: bytes of the body after which the connection is cut; with `stall`, after which nothing comes any more.
        length: what Content-Length claims.
        part: False ignores Range.
        as_range: what Content-Range claims.
        without: headers to leave out.
        packed: send it as gzip, though nobody asked for that.
    """
    if stored is None:
        return send(handler, site, 404, b"<?xml version='1.0'?><Error><Code>BlobNotFound</Code></Error>", {})
    body, status, headers = stored.content, 200, dict(stored.headers)
    span = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    condition = handler.headers.get("If-Range")
    if span and part and condition in (None, headers.get("ETag"), headers.get("Last-Modified")):
        if int(span[1]) >= len(body):
            return send(handler, site, 416, b"", {"Content-Range": f"bytes */{len(body)}"})
        status, first = 206, int(span[1])
        headers["Content-Range"] = as_range or f"bytes {first}-{len(body) - 1}/{len(body)}"
        headers.pop("Content-MD5", None)
        body = body[first:]
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    headers = {name: value for name, value in headers.items() if name not in without}
    send(handler, site, status, body, headers, stop=stop, stall=stall, length=length)


def send(handler, site, status, body, headers, *, reason=None, stop=None, stall=False, length=None):
    handler.send_response(status, reason)
    headers = {"Content-Length": str(len(body) if length is None else length), **headers}
    for name, value in headers.items():
        if value is not None:
            handler.send_header(name, value)
    if headers["Content-Length"] in (None, "none") or length is not None:
        handler.close_connection = True
    handler.end_headers()
    path = handler.path.partition("?")[0]
    due = body if stop is None else body[:stop]
    handler.wfile.write(due)
    site.sent[path] += len(due)
    if stall:
        handler.wfile.flush()
        site.released.wait(10)
    if stop is not None:
        handler.close_connection = True


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No settings of the machine's owner."""
    for name in (
        "HF_ENDPOINT",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def new_site():
    """Opens sites; they close at the end of the test."""
    opened = []

    def open_one():
        opened.append(Site())
        return opened[-1]

    yield open_one
    for site in opened:
        site.close()


@pytest.fixture
def site(new_site):
    """A plain server."""
    return new_site()


@pytest.fixture
def store(new_site, openai_files):
    """A server like OpenAI's store on Azure, which holds the model "tiny"."""
    site = new_site()
    for name, content in openai_files.items():
        digest = hashlib.md5(content).digest()
        headers = {"Content_MD5": b64encode(digest).decode(), "ETag": f'"0x8D{digest.hex()[:12].upper()}"'}
        site.put(f"/models/tiny/{name}", content, Last_Modified=CHANGED, Accept_Ranges="bytes", **headers)
    return site


@dataclass
class Hub:
    """A server like Hugging Face's, and the other one that it sends large files from."""

    site: Site
    cdn: Site

    @property
    def url(self):
        return self.site.url

    def put(self, repository, name, content):
        path = f"/{repository}/resolve/main/{name}"
        commit = hashlib.sha1(b"commit").hexdigest()
        if not name.endswith(LARGE):
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.site.put(path, content, ETag=f'"{oid}"', X_Repo_Commit=commit)
            return
        oid = hashlib.sha256(content).hexdigest()
        where = self.cdn.put(f"/{oid}", content, ETag=f'"{oid[:32]}"', Last_Modified=CHANGED)
        linked = {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": str(len(content)), "X_Repo_Commit": commit}
        self.site.always(path, Site.says(302, Location=f"{where}?Signature=secret", **linked))

    def put_folder(self, repository, folder):
        for path in sorted(Path(folder).iterdir()):
            if path.is_file() and path.name not in ("expected.npz", "encodings.json"):
                self.put(repository, path.name, path.read_bytes())


@pytest.fixture
def hub(new_site):
    """A hub without models, and its CDN."""
    return Hub(new_site(), new_site())


@pytest.fixture(scope="session")
def openai_files(golden):
    """The seven files of a tiny model, in the order of OpenAI's program; .meta, which nobody reads, is made up."""
    names = ("checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index")
    files = {name: (golden / "openai-tiny" / name).read_bytes() for name in (*names, "vocab.bpe")}
    return {**{name: files[name] for name in names}, "model.ckpt.meta": b"\n\x04meta", "vocab.bpe": files["vocab.bpe"]}


@pytest.fixture(scope="session")
def catalogue(openai_files):
    """A tiny release, and a model that is only on the hub."""
    files = tuple(
        KnownFile(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in openai_files.items()
    )
    return (
        KnownModel("tiny", "maker/tiny-gpt2", ("tinny",), 103_344, files),
        KnownModel("hubonly", "maker/hubonly"),
    )


@pytest.fixture
def web(site):
    """A conversation with the plain server, which loses patience fast."""
    with Web(site.url, timeout_seconds=0.2) as web:
        yield web


@pytest.fixture
def want(tmp_path):
    """A file of an address, with what is known of it."""

    def one(url, name="weights.data-0", **known):
        return Wanted(url, tmp_path / name, Promise(**known), name)

    return one
