"""A JSON object out of a file that may be anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpt2kit.errors import FormatError


def parse_object(content: bytes, origin: Path | str, offset: int | None = None) -> dict[str, Any]:
    """The object that `content` spells in UTF-8. Raises FormatError, which names `origin` and `offset`."""
    try:
        parsed = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(origin, offset, f"not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise FormatError(origin, offset, f"a JSON {type(parsed).__name__}; expected an object")
    return parsed
