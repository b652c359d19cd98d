import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gpt2kit import simple as gpt2
from gpt2kit.errors import RequestError
from gpt2kit.legacy.sessions import Session, forget, load_into, model_of, require_session

pytestmark = pytest.mark.slow  # threads, a server, and models loaded again and again

PREFIXES = ["The cat", "The dog", "a", "so it goes", "mat", "fog; then"]
GREEDY = {"length": 20, "top_k": 1, "return_as_list": True}


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


def test_a_session_computes_on_the_threads_it_was_given(tiny_checkpoint):
    assert load_into(gpt2.start_tf_sess(threads=3), tiny_checkpoint).engine.threads == 3
    assert load_into(gpt2.start_tf_sess(), tiny_checkpoint).engine.threads == 1  # enough for a tiny model


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


# --- with blocks ---


def test_a_session_can_be_used_in_a_with_and_gives_its_model_back_behind_it(tiny_checkpoint):
    with gpt2.start_tf_sess() as session:
        model = load_into(session, tiny_checkpoint)
        assert model.generate()
    with pytest.raises(RequestError, match="closed"):
        model.generate()


def test_the_blocks_of_tensorflow_change_nothing(tiny_checkpoint):
    session = gpt2.start_tf_sess()
    model = load_into(session, tiny_checkpoint)
    with session.graph.as_default(), session.as_default():
        assert model_of(session, 1, otherwise=pytest.fail) is model
    assert model_of(session, 1, otherwise=pytest.fail) is model


# --- threads ---


@pytest.fixture
def alone(sess):
    """What the model writes behind each of the prefixes, one after the other."""
    texts = [gpt2.generate(sess, prefix=prefix, **GREEDY) for prefix in PREFIXES]
    assert len({text.removeprefix(prefix) for [text], prefix in zip(texts, PREFIXES, strict=True)}) > 1
    return texts


def test_threads_with_one_session_get_each_its_own_text(sess, alone):
    begin = threading.Barrier(len(PREFIXES))

    def write(prefix):
        begin.wait(10)
        return gpt2.generate(sess, prefix=prefix, **GREEDY)

    with ThreadPoolExecutor(len(PREFIXES)) as threads:
        assert list(threads.map(write, PREFIXES)) == alone


def test_so_do_threads_of_which_some_need_more_room(sess, alone):
    """Which closes the model and opens it once more."""

    def write(prefix, batch_size):
        return gpt2.generate(sess, prefix=prefix, nsamples=batch_size, batch_size=batch_size, **GREEDY)

    sizes = [1, 2, 1, 3, 1, 4]
    with ThreadPoolExecutor(len(PREFIXES)) as threads:
        written = list(threads.map(write, PREFIXES, sizes))
    assert written == [text * size for text, size in zip(alone, sizes, strict=True)]


def test_threads_that_find_no_model_load_it_once(sess, alone, capsys):
    gpt2.reset_session(sess)
    capsys.readouterr()
    with ThreadPoolExecutor(len(PREFIXES)) as threads:
        written = threads.map(lambda prefix: gpt2.generate(sess, prefix=prefix, model_name="124M", **GREEDY), PREFIXES)
        assert list(written) == alone
    assert capsys.readouterr().out == "Loading pretrained model models/124M/model.ckpt\n"


def test_a_thread_that_fails_lets_the_next_have_its_turn(sess, alone):
    with ThreadPoolExecutor(1) as thread:
        with pytest.raises(ValueError, match="the prefix has"):
            thread.submit(gpt2.generate, sess, prefix="A" * 100).result(10)
        assert thread.submit(gpt2.generate, sess, prefix=PREFIXES[0], **GREEDY).result(10) == alone[0]
    assert gpt2.generate(sess, prefix=PREFIXES[0], **GREEDY) == alone[0]


def test_a_server_answers_from_one_session_in_a_thread_a_request(sess, alone):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            prefix = self.rfile.read(int(self.headers["Content-Length"])).decode()
            with sess.graph.as_default(), sess.as_default():
                [text] = gpt2.generate(sess, prefix=prefix, **GREEDY)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words):
            pass

    def ask(prefix):
        connection = HTTPConnection(*server.server_address, timeout=30)
        connection.request("POST", "/", prefix.encode())
        return [connection.getresponse().read().decode()]

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1 + len(PREFIXES)) as threads:
        threads.submit(server.serve_forever, 0.01)
        try:
            assert list(threads.map(ask, PREFIXES)) == alone
        finally:
            server.shutdown()


@pytest.mark.slow
def test_who_writes_while_the_session_learns_waits_and_has_the_model_that_learnt(here, sess, text):
    before = gpt2.generate(sess, **GREEDY)
    learning = {"steps": 5, "learning_rate": 0.01, "sample_length": 5, "accumulate_gradients": 1}
    with ThreadPoolExecutor(1) as thread:
        learnt = thread.submit(gpt2.finetune, sess, text, **learning)
        while not (here / "checkpoint" / "run1" / "lock").exists():
            assert not learnt.done()
            time.sleep(0.001)
        assert not learnt.done()
        written = gpt2.generate(sess, **GREEDY)
        learnt.result(10)
    other = gpt2.start_tf_sess()
    gpt2.load_gpt2(other)
    assert (here / "checkpoint" / "run1" / "counter").read_text("utf-8") == "5\n"
    assert written == gpt2.generate(other, **GREEDY) != before
