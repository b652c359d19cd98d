"""How a model is served: where, to whom, and how much of it one caller may take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gpt2kit.config.limits import require, require_finite, require_known

ORIGIN = re.compile(r"\*|[A-Za-z][A-Za-z0-9+.-]*://[^\s/*]+")
NAME = re.compile(r"\*|[^\s:/@*\[\]]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """How a model is served."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 is every address of this machine, which needs a key."""
    port: int = 5000
    """The port to listen on; 0 takes a free one."""
    slots: int = 8
    """Texts that one model writes at once; more wait for their turn."""
    queue: int = 64
    """Requests that may wait; those beyond are refused with status 429."""
    max_body: int = 1_000_000
    """Bytes in the body of a request."""
    max_prompts: int = 128
    """Prompts in one request."""
    max_n: int = 16
    """Texts for each prompt (n, best_of)."""
    max_tokens: int = 16_384
    """New tokens for each text."""
    deadline: float = 600.0
    """Seconds after which a request is given up."""
    grace: float = 30.0
    """Seconds that requests have left to finish when the server is asked to stop."""
    chat_template: Literal["none", "plain"] = "none"
    """plain lets chat programs talk to a model that only continues text: "User: ...", "Assistant: ..."."""
    allow_origin: tuple[str, ...] = ()
    """Web pages from these origins (https://example.org) may ask this server; * is every page. Its own always may."""
    allow_host: tuple[str, ...] = ()
    """Names this server is reached under, besides localhost, this machine's own name and plain addresses; * is any."""
    without_key: bool = False
    """Listen beyond this machine without a key: whoever reaches the port may write with your computer."""

    def __post_init__(self) -> None:
        require_finite(self)
        require_known(self)
        require(
            re.fullmatch(r"[^\s/*@\[\]]+", self.host) is not None,
            f"host must be a name or an address, got {self.host!r}",
        )
        require(0 <= self.port <= 65535, f"port must be 0 to 65535, got {self.port}")
        require(1 <= self.slots <= 4096, f"slots must be 1 to 4,096, got {self.slots:,}")
        require(self.queue >= 0, f"queue must be 0 or more, got {self.queue}")
        for name in ("max_body", "max_prompts", "max_n", "max_tokens"):
            require(getattr(self, name) >= 1, f"{name} must be 1 or more, got {getattr(self, name)}")
        require(self.deadline > 0, f"deadline must be above 0, got {self.deadline}")
        require(self.grace >= 0, f"grace must be 0 or more, got {self.grace}")
        for origin in self.allow_origin:
            example = "https://example.org"
            require(ORIGIN.fullmatch(origin) is not None, f"allow_origin is * or such as {example}, got {origin!r}")
        for name in self.allow_host:
            require(NAME.fullmatch(name) is not None, f"allow_host is * or a name without a port, got {name!r}")
