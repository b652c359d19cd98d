"""Every error a user can cause or meet. Programmer mistakes stay AssertionError.

Gpt2kitError
├── ConfigError            a setting is unknown, missing or impossible
├── ModelNotFound          no checkpoint answers to this name or path
├── FormatError            a file is not what its format promises
│   └── TruncatedFile      ... because it ends too early
├── WeightMismatch         right format, wrong model
├── MissingExtra           an optional package is not installed
├── DownloadError          network trouble, or the hash did not match
├── DataError              a text to learn from cannot be used
├── RunLocked              another process is training this run, or encoding into this place
├── DiskFull               there is no room for what must be written
├── OutOfMemory            the model or the batch does not fit
└── RequestError           somebody asked for something we refuse
    ├── PromptTooLong      ... more tokens than the window holds
    ├── QueueFull          ... while too many others wait
    └── NotAuthorised      ... without a valid key

A message says what is wrong, where, what was found, what was expected, and the next step.
"""

from __future__ import annotations

from pathlib import Path


class Gpt2kitError(Exception):
    """Shown to the user without a traceback; the command exits with status 1."""


class ConfigError(Gpt2kitError):
    """A setting is unknown, missing or impossible."""


class ModelNotFound(Gpt2kitError):
    """No checkpoint answers to this name or path."""


class FormatError(Gpt2kitError):
    """`path` does not hold what its format promises, at byte `offset` where that is known."""

    def __init__(self, path: Path | str, offset: int | None, problem: str) -> None:
        super().__init__(f"{path}: {problem}" + ("" if offset is None else f" (at byte {offset})"))
        self.path, self.offset, self.problem = path, offset, problem


class TruncatedFile(FormatError):
    """The file ends before its contents do."""


class WeightMismatch(Gpt2kitError):
    """The tensors do not fit the configuration, or the tokenizer does not fit the tensors."""


class MissingExtra(Gpt2kitError):
    """`purpose` needs a package that comes with the extra `extra`."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs a package that is not installed; get it with: pip install 'gpt2kit[{extra}]'"
        )
        self.extra = extra


class DownloadError(Gpt2kitError):
    """Network trouble, or the hash did not match."""


class DataError(Gpt2kitError):
    """A text to learn from is missing, empty or not text."""


class RunLocked(Gpt2kitError):
    """Another process is training this run, or encoding into this place."""


class DiskFull(Gpt2kitError):
    """There is no room for what must be written; what was there before is whole."""


class OutOfMemory(Gpt2kitError):
    """The model or the batch does not fit in memory."""


class RequestError(Gpt2kitError):
    """Somebody asked for something we refuse (over HTTP a 4xx)."""


class PromptTooLong(RequestError):
    """The prompt has more tokens than the window holds."""


class QueueFull(RequestError):
    """Too many requests wait already."""


class NotAuthorised(RequestError):
    """The key is missing or wrong."""
