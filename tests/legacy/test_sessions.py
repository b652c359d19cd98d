import gc
import weakref

import pytest

from gpt2kit.errors import RequestError
from gpt2kit.legacy.sessions import Session, forget, load_into, model_of, require_session


class Foreign:
    """Such as a script's own stand-in for TensorFlow's session."""


def test_a_session_keeps_its_model(tiny_checkpoint):
    session = Session()
    model = load_into(session, tiny_checkpoint)
    assert model_of(session, 1, otherwise=pytest.fail) is model


def test_any_object_will_do(tiny_checkpoint):
    session = Foreign()
    model = load_into(session, tiny_checkpoint)
    assert model_of(session, 1, otherwise=pytest.fail) is model


def test_two_sessions_have_two_models(tiny_checkpoint):
    one, two = Session(), Session()
    assert load_into(one, tiny_checkpoint) is not load_into(two, tiny_checkpoint)


def test_a_session_without_a_model_loads_one(tiny_checkpoint):
    session = Session()
    model = model_of(session, 2, otherwise=lambda: tiny_checkpoint)
    assert model.engine.slots == 2
    assert model_of(session, 2, otherwise=pytest.fail) is model


def test_larger_batches_open_the_model_with_more_room_and_smaller_ones_do_not(tiny_checkpoint):
    session = Session()
    first = load_into(session, tiny_checkpoint)
    larger = model_of(session, 3, otherwise=pytest.fail)
    assert larger.engine.slots == 3
    assert model_of(session, 1, otherwise=pytest.fail) is larger
    with pytest.raises(RequestError, match="closed"):
        first.generate()


@pytest.mark.parametrize("end", [Session.close, forget], ids=["close", "forget"])
def test_a_model_is_given_back(tiny_checkpoint, end):
    session = Session()
    model = load_into(session, tiny_checkpoint)
    end(session)
    end(session)
    with pytest.raises(RequestError, match="closed"):
        model.generate()


def test_a_model_goes_with_its_session(tiny_checkpoint):
    session = Session()
    model = weakref.ref(load_into(session, tiny_checkpoint))
    del session
    gc.collect()
    assert model() is None


@pytest.mark.parametrize("thing", [None, "run1", 3, [], {}])
def test_what_cannot_have_a_model_is_refused(thing):
    with pytest.raises(TypeError, match=r"sess must be what gpt2\.start_tf_sess\(\) returns, got "):
        require_session(thing)
