"""What is known of a file's bytes before they are here: by the catalogue, by the server's headers."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2kit.hub.web import Answer

SHA256, GIT_SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Promise:
    """What a file will be. None where nothing is known."""

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    """Of the blob, as git computes it."""
    md5: str | None = None
    validator: str | None = None
    """For If-Range: a strong ETag, or the time of the last change."""

    @classmethod
    def restored(cls, stored: dict[str, Any]) -> Promise:
        """From what `asdict` made, or from anything else that claims to be that."""
        words = {f.name: value for f in fields(cls) if isinstance(value := stored.get(f.name), str)}
        words.pop("size", None)
        return cls(size=size if isinstance(size := stored.get("size"), int) else None, **words)

    def stored(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def completed_by(self, other: Promise) -> Promise:
        """This, and where it knows nothing, what the other knows."""
        return Promise(
            *(mine if mine is not None else theirs for mine, theirs in zip(_row(self), _row(other), strict=True))
        )


def told_by(answer: Answer) -> Promise:
    """What the headers promise.

    The hub sends large files from elsewhere, and says beforehand what they are: X-Linked-Size, and the SHA-256 in
    X-Linked-Etag. The ETag of a small file is git's hash of it. Azure's Content-MD5 covers what is sent, so the whole
    file only in a whole answer; x-ms-blob-content-md5 always covers the file.
    """
    headers, linked = answer.headers, {**answer.headers, **answer.linked}
    etag = _unquoted(linked.get("x-linked-etag") or headers.get("etag"))
    is_git = "x-repo-commit" in linked and etag != linked["x-repo-commit"]  # a mirror's ETag may be the commit
    md5 = headers.get("x-ms-blob-content-md5") or (headers.get("content-md5") if answer.status == 200 else None)
    return Promise(
        size=_number(linked.get("x-linked-size")) or announced_size(answer),
        sha256=etag if "x-linked-etag" in linked and SHA256.fullmatch(etag) else None,
        git_sha1=etag if is_git and GIT_SHA1.fullmatch(etag) else None,
        md5=None if answer.encoded else _hex_of_base64(md5),
        validator=None if answer.encoded else _validator(headers.get("etag"), headers.get("last-modified")),
    )


def announced_size(answer: Answer) -> int | None:
    """The size of the whole file, by the length of the answer or the range it covers."""
    if answer.encoded:
        return None
    if answer.status == 206:
        return _number(answer.headers.get("content-range", "").rpartition("/")[2])
    return _number(answer.headers.get("content-length"))


def _validator(etag: str | None, last_modified: str | None) -> str | None:
    return etag if etag and not etag.startswith("W/") else last_modified


def _unquoted(etag: str | None) -> str:
    return (etag or "").removeprefix("W/").strip('"')


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 16 else None


def _hex_of_base64(text: str | None) -> str | None:
    try:
        digest = base64.b64decode(text or "", validate=True)
    except binascii.Error:
        return None
    return digest.hex() if len(digest) == 16 else None


def _row(promise: Promise) -> tuple[Any, ...]:
    return tuple(getattr(promise, field.name) for field in fields(promise))
