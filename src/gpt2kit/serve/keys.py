"""The keys that callers must have: where they are read from, and how one is compared with them."""

from __future__ import annotations

import hmac
import os
import stat
import warnings
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from gpt2kit.config.limits import require
from gpt2kit.errors import ConfigError


class Keys:
    """The keys of a server. Only their hashes are kept, so nothing can show them."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(_checked(key, f"key {number}")) for number, key in enumerate(keys, 1)]

    def accepts(self, key: str) -> bool:
        """Whether `key` is one of these. Takes as long for a wrong key as for a right one."""
        digest = _digest(key)
        return any([hmac.compare_digest(digest, known) for known in self._digests])  # a list: never stops early

    def __bool__(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._digests)

    def __repr__(self) -> str:
        return f"Keys({len(self._digests)})"


def read_keys(options: Sequence[str] = (), file: Path | None = None, environment: str | None = None) -> Keys:
    """All keys of these three sources.

    `file` has a key a line; blank lines and lines that begin with # do not count. An empty `environment` is none.
    """
    keys = [_checked(key, "--api-key") for key in options]
    if file is not None:
        keys += _keys_in(file)
    if environment:
        keys.append(_checked(environment, "the key in the environment"))
    return Keys(keys)


def _keys_in(file: Path) -> list[str]:
    try:
        text = file.read_text("utf-8-sig")
        mode = file.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{file}: the keys cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not a text file; expected a key a line") from error
    if os.name == "posix" and mode & stat.S_IROTH:
        warnings.warn(
            f"{file}: every user of this machine can read the keys; chmod 600 {file} hides them", stacklevel=3
        )
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    keys = [_checked(line, f"{file}, line {number}") for number, line in lines if line and not line.startswith("#")]
    require(bool(keys), f"{file}: holds no key; write one a line")
    return keys


def _checked(key: str, where: str) -> str:
    """The key, if it can stand in an HTTP header. The message never shows it."""
    require(key != "", f"{where}: the key is empty")
    visible = key.isascii() and key.isprintable() and " " not in key
    require(visible, f"{where}: a key is made of visible ASCII characters without blanks; this one is not")
    return key


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
