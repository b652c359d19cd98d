"""HTTP as downloads need it: careful with redirects, a token that stays at home, trouble told apart by its cure."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

from gpt2kit import __version__
from gpt2kit.errors import DownloadError

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

CHUNK_BYTES = 1 << 16
MAX_REDIRECTS = 10
REDIRECTS = {301, 302, 303, 307, 308}
KEPT = "; what has come is kept, and the same command goes on from there"


class MayPass(Exception):
    """Trouble that another try may overcome."""

    def __init__(self, what: str, wait_seconds: float | None = None) -> None:
        super().__init__(what)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class Answer:
    """What a server said, and the bytes it has ready."""

    url: str
    status: int
    reason: str
    headers: Mapping[str, str]
    """Names in lower case."""
    linked: Mapping[str, str]
    """What the hub said about the file before it sent us elsewhere: the headers of its answer."""
    chunks: Iterator[bytes]

    @property
    def encoded(self) -> bool:
        """Whether the bytes were packed on their way, so that lengths and ranges are not those of the file."""
        return self.headers.get("content-encoding", "identity").lower() != "identity"


class Web:
    """One conversation: it keeps connections open, and gives `token` to the host of `home` and to nobody else."""

    def __init__(self, home: str, token: str | None = None, *, timeout_seconds: float = 30.0) -> None:
        import requests

        self.home, self.timeout_seconds = _origin(home), timeout_seconds
        self._token, self._answered = token, False
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": f"gpt2kit/{__version__}", "Accept-Encoding": "identity"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """Ask for `url`. Raises MayPass or DownloadError, also while the chunks are read."""
        visited: list[str] = [url]
        linked: dict[str, str] = {}
        while True:
            response = self._ask(url, headers)
            with response:
                told = {name.lower(): value for name, value in response.headers.items()}
                if response.status_code not in REDIRECTS:
                    chunks = self._chunks(url, response)
                    reason = http.client.responses.get(response.status_code, "")  # not the server's own words
                    yield Answer(_shown(url), response.status_code, reason, told, linked, chunks)
                    return
                linked = told | linked
                url = next_hop(url, told.get("location"), visited)

    def _ask(self, url: str, headers: Mapping[str, str]) -> Response:
        """One request. Not by Session.get: that reads a redirect to its end, which may never come."""
        from requests import Request

        with self._troubles(url):
            request = self._session.prepare_request(Request("GET", url, headers=dict(headers), auth=self._authorise))
            settings = self._session.merge_environment_settings(str(request.url), {}, True, None, None)
            response = self._session.get_adapter(str(request.url)).send(
                request, timeout=self.timeout_seconds, **settings
            )
        self._answered = True
        return response

    def _authorise(self, request: PreparedRequest) -> PreparedRequest:
        """Adds the token, at home only. That there is an `auth` at all keeps ~/.netrc out."""
        if self._token and _origin(str(request.url)) == self.home:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _chunks(self, url: str, response: Response) -> Iterator[bytes]:
        with self._troubles(url):
            yield from response.iter_content(CHUNK_BYTES)

    @contextmanager
    def _troubles(self, url: str) -> Iterator[None]:
        """Turn what goes wrong into MayPass or DownloadError."""
        import urllib3.exceptions
        from requests import exceptions

        host, shown = urlsplit(url).hostname, _shown(url)
        try:
            yield
        except exceptions.SSLError as error:
            if isinstance(_root(error), ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
                raise MayPass(f"the connection to {host} broke") from None
            raise DownloadError(
                f"{shown}: the certificate of {host} is not accepted: {_root(error)}; where the network reads along, "
                "put its certificate into REQUESTS_CA_BUNDLE"
            ) from None
        except exceptions.ProxyError as error:
            raise DownloadError(
                f"{shown}: the proxy does not let us through: {_root(error)}; see HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
            ) from None
        except exceptions.Timeout:
            raise MayPass(f"{host} was silent for {self.timeout_seconds:g} seconds") from None
        except exceptions.ConnectionError as error:
            root = _root(error)
            if isinstance(root, TimeoutError):
                raise MayPass(f"{host} was silent for {self.timeout_seconds:g} seconds") from None
            if not self._answered and isinstance(root, socket.gaierror | ConnectionRefusedError):
                found = "is not known" if isinstance(root, socket.gaierror) else "takes no connection"
                raise DownloadError(
                    f"{shown}: the host {host} {found}; is there a network? A proxy goes into HTTPS_PROXY; for a "
                    "mirror: gpt2 download NAME --endpoint URL; for the hub, whose mirror goes into HF_ENDPOINT: "
                    "gpt2 download NAME --source huggingface"
                ) from None
            raise MayPass(f"the connection to {host} broke") from None
        except (exceptions.ChunkedEncodingError, exceptions.ContentDecodingError, http.client.HTTPException):
            raise MayPass(f"the connection to {host} broke") from None
        except (exceptions.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
            raise DownloadError(f"{shown}: {_shown(str(error))}") from None


def next_hop(url: str, location: str | None, visited: list[str]) -> str:
    """Where a redirect of `url` leads; it joins `visited`. Raises DownloadError for one that is not to be followed."""
    shown = _shown(url)
    if not location:
        raise DownloadError(f"{shown}: a redirect that leads nowhere")
    try:
        # http.client reads headers as Latin-1; what is not ASCII there is nearly always UTF-8.
        target = urljoin(url, location.encode("latin-1", "replace").decode("utf-8", "replace"))
        parts = urlsplit(target)
        _origin(target)
    except ValueError:
        raise DownloadError(f"{shown}: a redirect to {_shown(location)!r:.80}, which is no address") from None
    if parts.scheme not in ("http", "https"):
        raise DownloadError(f"{shown}: a redirect to {parts.scheme}:, expected https; not followed")
    if urlsplit(url).scheme == "https" and parts.scheme == "http":
        raise DownloadError(f"{shown}: a redirect from https to http, to {parts.hostname!r:.80}; not followed")
    if target in visited or len(visited) > MAX_REDIRECTS:
        raise DownloadError(f"{_shown(visited[0])}: redirects without end, {len(visited)} of them; try another mirror")
    visited.append(target)
    return target


def _shown(url: str) -> str:
    """An address for the eye: no query, which may be a signature, and nothing that a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in url.partition("?")[0])


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _root(error: BaseException) -> BaseException:
    """The innermost cause that requests and urllib3 have wrapped."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner: Any = error.__cause__ or getattr(error, "reason", None)
        inner = (
            inner
            if isinstance(inner, BaseException)
            else next((part for part in error.args if isinstance(part, BaseException)), error.__context__)
        )
        if inner is None:
            break
        error = inner
    return error
