"""The server process: listen, tell where, answer until somebody says stop, then let the others finish."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gpt2kit.config.serving import ServingConfig
from gpt2kit.errors import ConfigError
from gpt2kit.serve.memory import give_back_unused, keep_one_heap
from gpt2kit.serve.protocol import DeadlineProtocol
from gpt2kit.serve.worker import Worker

SECONDS_TO_CLOSE = 5  # for what is written already and still on its way to slow readers
SECONDS_FOR_STEP = 1  # after a second signal
TICKS_TO_GIVE_BACK = 100  # ten seconds
OPEN_FILES = 4096  # connections, and files of models; many systems allow 1,024 or fewer unless asked

Tell = Callable[[str], None]


def run(app: FastAPI, config: ServingConfig, tell: Tell) -> bool:
    """Serve until SIGTERM or Ctrl-C; `tell` hears what the person at the terminal should know.

    Returns:
        False where the first model could not be read, for which the log has the reason.

    Raises:
        ConfigError: the address cannot be had.
        KeyboardInterrupt: Ctrl-C, after all is closed.
    """
    worker: Worker = app.state.worker
    _allow_many_files()
    keep_one_heap()
    with _listen(config) as listener:
        names = ", ".join(model.name for model in app.state.models)
        tell(f"serving {names} at {links(*listener.getsockname()[:2])}")
        Server(app, config, tell).run(sockets=[listener])
    return not (worker.fault and not worker.was_ready)


class Server(uvicorn.Server):
    """uvicorn, which at the first signal refuses new requests, lets the others end within `grace`, and then closes."""

    def __init__(self, app: FastAPI, config: ServingConfig, tell: Tell) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=DeadlineProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="critical",  # the app logs its faults; uvicorn would, of whom it hangs up on at the end
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=SECONDS_TO_CLOSE,
            )
        )
        self._worker: Worker = app.state.worker
        self._grace, self._tell = config.grace, tell
        self._stopping = False
        self._close_at: float | None = None
        self._told_ready = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Of uvicorn's: a signal came, in the middle of anything."""
        if sig == signal.SIGINT:
            self._captured_signals.append(sig)  # is raised again when all is closed
        if self._stopping:
            self.force_exit = True  # waits for no reader
            self.config.timeout_graceful_shutdown = 0
        self._stopping = True
        self._worker.drain()

    async def on_tick(self, counter: int) -> bool:
        """Of uvicorn's: ten times a second."""
        if self._worker.was_ready and not self._told_ready:
            self._told_ready = True
            self._tell(f"ready ({self._worker.engine}, {self._worker.device})")
        if self._stopping and self._close_at is None:
            self._close_at = time.monotonic() + self._grace
            if (jobs := self._worker.jobs) and self._grace:
                what = f"{jobs} requests" if jobs > 1 else "1 request"
                self._tell(f"finishing {what}, for {self._grace:g} seconds at most; a second signal stops at once")
        if self._close_at is not None:
            self.should_exit |= self.force_exit or not self._worker.jobs or time.monotonic() >= self._close_at
        self.should_exit |= self._worker.fault is not None and not self._worker.was_ready
        if counter % TICKS_TO_GIVE_BACK == 0:
            give_back_unused()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Of uvicorn's: end the worker first, so that whoever still waits is told."""
        begun = time.monotonic()
        while not self._worker.stop(timeout_seconds=0):
            if self.force_exit and time.monotonic() > begun + SECONDS_FOR_STEP:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def links(host: str, port: int) -> str:
    """Where a browser finds what listens there: all addresses of a machine have one for itself and one for others."""
    if host not in ("0.0.0.0", "::"):
        return _link(host, port)
    here, others = _link("127.0.0.1" if host == "0.0.0.0" else "::1", port), _link(_address_for_others(host), port)
    return f"{here} (from other machines: {others})"


def _address_for_others(host: str) -> str:
    """What this machine sends from, or its name where it has no network. Nothing is sent: UDP connects by itself."""
    family, elsewhere = (socket.AF_INET, "192.0.2.1") if host == "0.0.0.0" else (socket.AF_INET6, "2001:db8::1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((elsewhere, 9))  # an address for documentation: nobody's
            return str(asking.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _link(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _listen(config: ServingConfig) -> socket.socket:
    host, port = config.host, config.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # UnicodeError: of names that cannot be
        raise ConfigError(
            f"{host}: no address to listen on ({getattr(error, 'strerror', error)}); "
            "127.0.0.1 is for this machine only, 0.0.0.0 for all"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} of {host} is in use, perhaps by another gpt2 serve; take another one: "
                f"--port {port + 1 if port < 65535 else 0}"
            ) from None
        hint = "; ports below 1024 are for the administrator: take another one, such as --port 5000"
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}{hint if error.errno == errno.EACCES else ''}"
        ) from None
    return listener


def _allow_many_files() -> None:
    try:
        from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
    except ImportError:  # Windows has no such limit
        return
    soft, hard = getrlimit(RLIMIT_NOFILE)
    if soft != RLIM_INFINITY and soft < OPEN_FILES:
        setrlimit(RLIMIT_NOFILE, (OPEN_FILES if hard == RLIM_INFINITY else min(OPEN_FILES, hard), hard))
