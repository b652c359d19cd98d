"""One file, from an address to its place: resumed, tried again, verified, renamed.

A try asks for what is missing (Range), on the condition that the file is still the same (If-Range). It ends with the
whole file, with trouble that may pass, or for good. Bytes that come a second time do not count
as progress, so a server that always breaks at the same place is given up.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from gpt2kit.errors import DownloadError
from gpt2kit.hub.check import hash_problem, is_web_page, structure_problem
from gpt2kit.hub.partial import Partial
from gpt2kit.hub.promise import Promise, announced_size, told_by
from gpt2kit.hub.web import KEPT, Answer, MayPass, Web
from gpt2kit.json_object import MOST_BYTES as MOST_TEXT_BYTES
from gpt2kit.progress import Progress, Report

TRIES = 6  # without a new byte
LONGEST_WAIT = 120  # seconds, whatever a server asks for
PASSING = {408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
REPORT_SECONDS = 0.1
RATED_BYTES = 1_000_000  # fewer tell nothing about the speed of a network
MOST_BYTES = {"text": MOST_TEXT_BYTES, "weights": 64_000_000_000}  # far more than any GPT-2 has
CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")

Pause = Callable[[float], None]


class Refused(Exception):
    """The server has no such file for us."""

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(f"{url}: {status} {reason}".rstrip())
        self.status = status


@dataclass(frozen=True)
class Wanted:
    """A file, where it comes from and where it goes."""

    url: str
    path: Path
    known: Promise
    task: str
    """What progress calls it."""

    @property
    def most_bytes(self) -> int:
        """More is not written, whatever a server promises."""
        name = self.path.name
        return MOST_BYTES["text" if name.endswith((".json", ".txt", ".bpe", "checkpoint")) else "weights"]


def fetch(web: Web, wanted: Wanted, report: Report, pause: Pause = time.sleep) -> Promise:
    """Bring the file to its place. Returns what it turned out to be, its size and SHA-256 included.

    Raises:
        Refused: the server says that there is no such file, or not for us.
        DownloadError: the trouble does not pass, or the file is not what was promised.
        DiskFull: what has come is kept, here as after any kill.
    """
    partial = Partial(wanted.path)
    for _ in range(2):
        promise, resumed = _completed(web, wanted, partial, report, pause)
        sha256, problem = hash_problem(partial.path, promise, report, f"verify {wanted.task}")
        problem = problem or structure_problem(partial.path, wanted.path.name)
        if problem is None:
            size = partial.size()
            partial.finish()
            return replace(promise, size=size, sha256=sha256)
        partial.discard()
        if not resumed:
            break
    raise DownloadError(
        f"{wanted.url}: what came is not the file: {problem}; nothing of it is kept. Try again later, or take another "
        "source or mirror (--source, --endpoint)"
    )


def _completed(web: Web, wanted: Wanted, partial: Partial, report: Report, pause: Pause) -> tuple[Promise, bool]:
    """Try until the partial file is whole. Returns what was promised of it, and whether it came in several pieces."""
    furthest, failures, resumed = partial.size(), 0, False
    while True:
        resumed = resumed or partial.size() > 0
        try:
            return _tried(web, wanted, partial, report), resumed
        except MayPass as trouble:
            if partial.size() > furthest:
                furthest, failures = partial.size(), 0
            failures += 1
            if failures == TRIES:
                raise DownloadError(f"{wanted.url}: {trouble}, {TRIES} times in a row{KEPT}") from None
            seconds = trouble.wait_seconds if trouble.wait_seconds is not None else 2 ** (failures - 1)
            _wait(seconds, f"{wanted.task}: {trouble}; waiting", report, pause)


def _tried(web: Web, wanted: Wanted, partial: Partial, report: Report) -> Promise:
    held, before = partial.size(), wanted.known.completed_by(partial.promise())
    if held and held == before.size:
        return before
    resume = _resume_headers(held, before)
    report(Progress(wanted.task, held, before.size, "byte"))  # a silent server is waited for
    with web.get(wanted.url, resume) as answer:
        told = told_by(answer)
        if resume and _goes_on(answer, held, before, told):
            promise = before
        elif answer.status == 200:
            promise, held = wanted.known.completed_by(told), 0
        elif resume and answer.status in (206, 416):  # not what was asked for: begin again
            partial.discard()
            return _tried(web, wanted, partial, report)
        else:
            raise _trouble(answer)
        chunks = _checked_start(answer, wanted, told, promise) if held == 0 else answer.chunks
        if promise.size is not None:
            partial.require_room(promise.size)
        if held == 0:
            partial.begin(promise)
        _write(chunks, wanted, partial, promise, report)
    if promise.size is not None and partial.size() < promise.size:
        raise MayPass(f"the connection broke {promise.size - partial.size():,} bytes before the end")
    return replace(promise, size=partial.size())


def _resume_headers(held: int, before: Promise) -> dict[str, str]:
    """What asks for the rest. Without a validator only if a hash will tell whether the pieces fit."""
    fits = before.validator or before.sha256
    if not held or not fits or (before.size is not None and held > before.size):
        return {}
    condition = {"If-Range": before.validator} if before.validator else {}
    return {"Range": f"bytes={held}-", **condition}


def _goes_on(answer: Answer, held: int, before: Promise, told: Promise) -> bool:
    """Whether the answer begins at the first missing byte of the same file."""
    span = CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    if answer.status != 206 or answer.encoded or span is None or int(span[1]) != held:
        return False
    pairs = ((before.size, told.size), (before.sha256, told.sha256), (before.validator, told.validator))
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _trouble(answer: Answer) -> Exception:
    if answer.status not in PASSING and "x-linked-etag" not in answer.linked:  # the hub said that it is there
        return Refused(answer.url, answer.status, answer.reason)
    what = f"the server says {answer.status} {answer.reason}".rstrip()
    return MayPass(what, _retry_after(answer.headers.get("retry-after"), datetime.now(UTC)))


def _retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds to wait, of a number or a date."""
    if text and text.strip().isdecimal():
        return min(float(text), LONGEST_WAIT)
    try:
        then = parsedate_to_datetime(text or "")
        seconds = (then if then.tzinfo else then.replace(tzinfo=UTC)) - now
    except ValueError:
        return None
    return min(max(seconds.total_seconds(), 0.0), LONGEST_WAIT)


def _checked_start(answer: Answer, wanted: Wanted, told: Promise, promise: Promise) -> Iterator[bytes]:
    """The chunks, after a look at the first: nothing is written of what cannot be the file."""
    if promise.size is not None and promise.size > wanted.most_bytes:
        raise DownloadError(
            f"{wanted.url}: the server has {promise.size:,} bytes; more than {wanted.most_bytes:,} are not taken"
        )
    first = next(answer.chunks, b"")
    if is_web_page(first):
        raise DownloadError(
            f"{wanted.url}: a web page came instead of the file; is it the login page of the network, or a mirror that "
            "has no such file? Open the address in a browser, or take another source (--source, --endpoint)"
        )
    for size in (told.size, announced_size(answer)):
        if None not in (size, promise.size) and size != promise.size:
            raise DownloadError(
                f"{wanted.url}: the server has {size:,} bytes, expected {promise.size:,}: not the released file. Take "
                "another source or mirror (--source, --endpoint)"
            )
    return _again(first, answer.chunks)


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _write(chunks: Iterator[bytes], wanted: Wanted, partial: Partial, promise: Promise, report: Report) -> None:
    """Put what comes at the end of the partial file, and never more than was promised."""
    limit = wanted.most_bytes if promise.size is None else promise.size
    began, start = time.monotonic(), partial.size()
    position, told_at = start, 0.0
    with partial.appending() as file:
        for chunk in chunks:
            position += len(chunk)
            if position > limit:
                break
            file.write(chunk)
            now = time.monotonic()
            if now - told_at >= REPORT_SECONDS or position == limit:
                told_at = now
                rate = (position - start) / max(now - began, 1e-6) / 1e6
                values = {"megabytes_per_second": rate} if position - start >= RATED_BYTES else {}
                report(Progress(wanted.task, position, promise.size, "byte", values))
    if position > limit:
        partial.discard()
        raise DownloadError(f"{wanted.url}: more than the {limit:,} bytes came that were expected; stopped there")


def _wait(seconds: float, task: str, report: Report, pause: Pause) -> None:
    whole = math.ceil(seconds)
    for passed in range(whole):
        report(Progress(task, passed, whole, "second"))
        pause(min(1.0, seconds - passed))
    report(Progress(task, whole, whole, "second"))
