"""The promise of training: kill -9 at any instant, the same command again, and it ends as if nothing had happened.

Real processes and real kills; `benchmarks/bench_crash.py`, which holds them, does it fifty times.
"""

import random
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bench_crash.py"


@pytest.fixture(scope="module")
def crash():
    """The benchmark, as a module."""
    spec = spec_from_file_location("bench_crash", BENCHMARK)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def peaceful(crash, tmp_path_factory):
    """What 100 steps leave that nobody disturbed."""
    training = crash.Training(tmp_path_factory.mktemp("peaceful"))
    training.finish()
    return training.left()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_a_run_that_is_killed_five_times_ends_as_one_left_in_peace(crash, peaceful, here):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    instants = random.Random(seed)
    training = crash.Training(here)
    aims = [crash.NOTHING, crash.UNNAMED, crash.WRITING, crash.BETWEEN, crash.WRITING]
    fell = [training.kill(aim, instants) for aim in aims]
    print(fell)
    assert None not in fell, "the run came to its end before a kill"
    assert {crash.WRITING, crash.UNNAMED} & set(fell), "no kill fell into a save"
    training.finish()
    left = training.left()
    assert sorted(left) == sorted(peaceful)
    assert len(left["metrics.jsonl"]) > 100
    for name in left:
        assert left[name] == peaceful[name], f"{name} differs"


@pytest.mark.slow
def test_the_undisturbed_run_learns_saves_and_samples(peaceful):
    """What the others are compared with has something in it."""
    steps = peaceful["directories"] - {"run1"}
    assert {"000000098", "000000100"} <= steps
    assert peaceful["checkpoint/run1/latest"] == b"000000100\n"
    losses = [event["loss"] for event in peaceful["metrics.jsonl"] if event["event"] == "train"]
    assert losses[-1] < losses[0] - 1
    assert peaceful["checkpoint/run1/samples/samples-100"].startswith(b"======== SAMPLE 1 ========\n")
