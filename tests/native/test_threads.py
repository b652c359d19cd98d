"""The native engine among others: interrupted, beside a second one, asleep."""

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpt2kit.config.model import ModelConfig
from gpt2kit.generate.engine import Row
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.model.initial import initial_checkpoint

IDS = [n * 37 % 100 for n in range(2000)]


@pytest.fixture(scope="module")
def large():
    """Large enough to be interrupted in the middle of its window."""
    config = ModelConfig(vocab_size=100, window=2000, width=256, layers=8, heads=8, inner_width=1024)
    return initial_checkpoint(config, {}, seed=0)


def choices(engine, prompt, count):
    """Logits of a prompt and of what is chosen greedily after it."""
    logits = [engine.step([Row(0, prompt, "last")]).copy()]
    while len(logits) < count:
        logits.append(engine.step([Row(0, [int(logits[-1].argmax())], "last")]).copy())
    return np.concatenate(logits)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no alarms")
def test_ctrl_c_ends_a_long_step_and_leaves_the_slots_as_they_were(large, monkeypatch):
    monkeypatch.setenv("GPT2KIT_ISA", "portable")  # the slowest
    engine = NativeEngine(large, 2, "fp32", 2)
    engine.step([Row(0, IDS[:5], "none"), Row(1, IDS[:7], "none")])
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.06)
        with pytest.raises(KeyboardInterrupt):
            engine.step([Row(0, IDS[5:], "last"), Row(1, IDS[7:], "last")])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    rest = engine.step([Row(0, IDS[5:300], "last"), Row(1, IDS[7:20], "last")])
    expected = NativeEngine(large, 2, "fp32", 2).step([Row(0, IDS[:300], "last"), Row(1, IDS[:20], "last")])
    np.testing.assert_array_equal(rest, expected)


def test_two_engines_work_side_by_side(large):
    alone = [choices(NativeEngine(large, 1, "fp32", 2), IDS[n : n + 50], 40) for n in range(2)]
    engines = [NativeEngine(large, 1, "fp32", 2) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda n: choices(engines[n], IDS[n : n + 50], 40), range(2)))
    np.testing.assert_array_equal(together, alone)


def test_threads_without_work_sleep(large):
    engine = NativeEngine(large, 1, "fp32", 4)
    choices(engine, IDS[:50], 5)
    time.sleep(0.1)
    used = time.process_time()  # of all threads
    time.sleep(0.5)
    assert time.process_time() - used < 0.1
