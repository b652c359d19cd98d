"""A JSON object out of a file that may be anything, and other small files that may be huge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpt2kit.errors import FormatError

MOST_BYTES = 16_000_000  # a vocabulary takes 4 MB at most; hostile JSON of this size, parsed, some 400 MB


def read_small(path: Path) -> bytes:
    """The content of a file of settings or words. Raises FormatError where it is far too large to be one."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise FormatError(path, None, f"more than {MOST_BYTES:,} bytes, far too large for what it should hold")
    return content


def read_object(path: Path) -> dict[str, Any]:
    """The object in the JSON file `path`. Raises FormatError."""
    return parse_object(read_small(path), path)


def parse_object(content: bytes, origin: Path | str, offset: int | None = None) -> dict[str, Any]:
    """The object that `content` spells in UTF-8. Raises FormatError, which names `origin` and `offset`."""
    try:
        parsed = json.loads(content.decode("utf-8-sig"))  # Windows' editor begins files with a mark
    except (ValueError, RecursionError) as error:
        raise FormatError(origin, offset, f"not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise FormatError(origin, offset, f"a JSON {type(parsed).__name__}; expected an object")
    return parsed
