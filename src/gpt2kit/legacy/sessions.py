"""What stands in for TensorFlow's sessions: an object of the script's, to which the model that it loaded belongs.

Any object that can be weakly referenced will do. The model is freed with its session, by `forget`, or when another one
is loaded. Threads that share a session take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import Self
from weakref import WeakKeyDictionary

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.generate.generator import Generator
from gpt2kit.jobs.load import load


class _Held:
    """What belongs to a session. Where its checkpoint cannot be loaded once more, no other takes its place."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.checkpoint: Checkpoint | None = None
        self.model: Generator | None = None


_HELD: WeakKeyDictionary[object, _Held] = WeakKeyDictionary()


class Session:
    """What `start_tf_sess` returns. As there, it can be used in a `with`; `graph` and `as_default` change nothing."""

    def __init__(self, threads: int | None = None) -> None:
        """`threads` compute on a CPU; None takes as many as the processor has cores."""
        self.threads = threads

    @property
    def graph(self) -> Session:
        """Scripts enter `sess.graph.as_default()` before they write from another thread."""
        return self

    def as_default(self) -> nullcontext[Self]:
        """For `with`; every call names its session anyway."""
        return nullcontext(self)

    def close(self) -> None:
        """Free the memory of its model. It can load another."""
        forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_session(sess: object) -> None:
    """Raise TypeError for what no model can belong to."""
    _held(sess)


@contextmanager
def my_turn(sess: object) -> Iterator[None]:
    """Wait until no other thread uses the session; a thread may use it as often as it likes."""
    with _held(sess).lock:
        yield


def load_into(sess: object, checkpoint: Checkpoint, slots: int = 1) -> Generator:
    """Load a model in place of the one that `sess` has."""
    forget(sess)
    held = _held(sess)
    held.checkpoint = checkpoint
    held.model = load(checkpoint, slots=slots, threads=sess.threads if isinstance(sess, Session) else None)
    return held.model


def model_of(sess: object, slots: int, otherwise: Callable[[], Checkpoint]) -> Generator:
    """The model of `sess`, with room for `slots` texts at once; if it has none, that of `otherwise`."""
    held = _held(sess)
    if held.model and held.model.engine.slots >= slots:
        return held.model
    return load_into(sess, held.checkpoint or otherwise(), slots)


def forget(sess: object) -> None:
    """Free the memory of the model that `sess` has, if it has one."""
    held = _held(sess)
    model, held.model, held.checkpoint = held.model, None, None
    if model:
        model.close()


def _held(sess: object) -> _Held:
    try:
        return _HELD.setdefault(sess, _Held())
    except TypeError:
        raise TypeError(f"sess must be what gpt2.start_tf_sess() returns, got {sess!r:.60}") from None
