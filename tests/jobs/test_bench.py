"""The figures of gpt2 bench: one for every precision, in proportion to each other; no times."""

import sys

import pytest

from gpt2kit.errors import ConfigError
from gpt2kit.jobs import bench as job
from gpt2kit.jobs.bench import Machine, Speed, bench


@pytest.fixture(autouse=True)
def small_probe(monkeypatch):
    monkeypatch.setattr(job, "PROBE_BYTES", 1 << 20)


def test_every_precision_is_measured_after_the_machine_is_told(golden):
    machine, *speeds = bench(golden / "hf-safetensors", threads=2)
    assert machine == Machine(str(golden / "hf-safetensors"), 2, machine.instruction_set)
    assert [speed.precision for speed in speeds] == ["fp32", "bf16", "int8", "int4"]
    assert all(speed.tokens_per_second > 0 and speed.bytes_per_second > 0 for speed in speeds)
    sizes = [speed.weight_bytes for speed in speeds]
    assert sizes == sorted(sizes, reverse=True)
    # Filled up to 64: three layers of 128 + 64 + 192 outputs of 64 inputs and 64 of 192, and 320 of the head; vectors.
    assert 0 < sizes[0] - 4 * 64 * (3 * (128 + 64 + 192 + 192) + 320) < 20_000


def test_the_share_is_of_the_tokens_that_memory_allows():
    assert Speed("int8", 100, 5.0, 1000.0).share == 0.5


def test_without_the_native_engine_there_is_nothing_to_measure(monkeypatch):
    monkeypatch.setitem(sys.modules, "gpt2kit._native", None)
    with pytest.raises(ConfigError, match="was not built here"):
        next(bench())
