"""What somebody types, or sends through a pipe."""

from __future__ import annotations

import io
import sys

from gpt2kit.errors import DataError


def expect_utf8() -> None:
    """Files and pipes are UTF-8; a terminal knows better, and a wrong key there must not end the program."""
    if sys.stdin is None:
        raise DataError("standard input is closed; there is nobody to talk to")
    if isinstance(sys.stdin, io.TextIOWrapper):
        if sys.stdin.isatty():
            sys.stdin.reconfigure(errors="replace")
        else:
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")


def typed_line(prompt: str) -> str:
    """A line of standard input. Raises EOFError at its end, DataError where it is no text."""
    try:
        return input(prompt)
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not UTF-8: {error}") from None
