"""What stands in for TensorFlow's sessions: an object of the script's, to which the model that it loaded belongs.

Any object that can be weakly referenced will do. The model is freed with its session, by `forget`, or when another one
is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.generate.generator import Generator
from gpt2kit.jobs.load import load

_LOADED: WeakKeyDictionary[object, Generator] = WeakKeyDictionary()


class Session:
    """What `start_tf_sess` returns."""

    def close(self) -> None:
        """Free the memory of its model. It can load another."""
        forget(self)


def require_session(sess: object) -> None:
    """Raise TypeError for what no model can belong to."""
    try:
        _LOADED.get(sess)
    except TypeError:
        raise TypeError(f"sess must be what gpt2.start_tf_sess() returns, got {sess!r:.60}") from None


def load_into(sess: object, checkpoint: Checkpoint, slots: int = 1) -> Generator:
    """Load a model in place of the one that `sess` has."""
    forget(sess)
    _LOADED[sess] = load(checkpoint, slots=slots)
    return _LOADED[sess]


def model_of(sess: object, slots: int, otherwise: Callable[[], Checkpoint]) -> Generator:
    """The model of `sess`, with room for `slots` texts at once; if it has none, that of `otherwise`."""
    require_session(sess)
    model = _LOADED.get(sess)
    if model and model.engine.slots >= slots:
        return model
    return load_into(sess, model.checkpoint if model else otherwise(), slots)


def forget(sess: object) -> None:
    """Free the memory of the model that `sess` has, if it has one."""
    require_session(sess)
    if model := _LOADED.pop(sess, None):
        model.close()
