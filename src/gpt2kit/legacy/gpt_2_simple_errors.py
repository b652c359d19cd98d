"""The errors of gpt-2-simple that a script may catch, which are ours too: shown in one line on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gpt2kit.errors import ConfigError, ModelNotFound


class NotThere(ModelNotFound, FileNotFoundError):
    """A model or a run is not there; the old program raised FileNotFoundError."""


class BadValue(ConfigError, ValueError):
    """A parameter is impossible; the old program raised ValueError."""


class UnevenBatches(ConfigError, AssertionError):
    """The texts cannot be cut into equal batches; the old program asserted it."""


@contextmanager
def as_old_errors() -> Iterator[None]:
    """Errors that are those of the old program too, as the classes above say."""
    try:
        yield
    except (BadValue, NotThere, UnevenBatches):
        raise
    except ConfigError as error:
        raise BadValue(str(error)) from None
    except ModelNotFound as error:
        raise NotThere(str(error)) from None
