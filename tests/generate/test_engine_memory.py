"""What the torch engine reads once, and how much memory it takes."""

import os
import sys
from pathlib import Path

import pytest
import torch

from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import OutOfMemory
from gpt2kit.generate.cache_memory import free_for_cache
from gpt2kit.generate.engine import Row
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.torch_engine import TorchEngine, slots_that_fit
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.kv_cache import KeyValueCache
from gpt2kit.model.weights import to_network

# --- the weights are read once a step ---


@pytest.fixture
def network(tiny_checkpoint):
    return to_network(tiny_checkpoint.config, tiny_checkpoint.tensors).eval()


@pytest.fixture
def seen(network):
    """How many positions came by at each use of a matrix inside the network."""
    counts = []
    network.h[1].mlp.c_fc.register_forward_hook(
        lambda _, inputs, __: counts.append(inputs[0].numel() // inputs[0].size(-1))
    )
    return counts


def test_a_step_of_unequal_rows_passes_the_weights_once(network, seen):
    engine = TorchEngine.around(network, slots=4)
    engine.step([Row(0, [1] * 5, "none"), Row(1, [2], "last"), Row(2, [3] * 20, "all"), Row(3, [4])])
    assert seen == [27]


def test_logits_are_made_of_wanted_positions_only(tiny_checkpoint):
    made = []

    class Counting(GPT2):
        def head(self, x_BTD):
            made.append(x_BTD.numel() // self.config.width)
            return super().head(x_BTD)

    engine = TorchEngine.around(Counting(tiny_checkpoint.config).eval(), slots=3)
    engine.step([Row(0, [1] * 5, "none"), Row(1, [2] * 9), Row(2, [3] * 4, "all")])
    assert made == [5]


def test_a_step_of_no_rows_gives_nothing(tiny_checkpoint):
    assert TorchEngine(tiny_checkpoint).step([]).shape == (0, 320)


# --- how many ids there is room for ---

POSITION = 2 * 3 * 40 * 4  # bytes of the tiny model: keys and values, layers, width, float32


@pytest.mark.parametrize(
    ("memory_bytes", "ids"),
    [(10**12, 4 * 56), (100 * POSITION, 100), (100 * POSITION - 1, 99), (0, 56)],
    ids=["plenty", "scarce", "not quite", "none"],
)
def test_the_capacity_is_what_memory_and_slots_allow_but_a_window_at_least(tiny_checkpoint, memory_bytes, ids):
    engine = TorchEngine(tiny_checkpoint, slots=4, memory_bytes=memory_bytes)
    assert (engine.capacity, engine.slots) == (ids, 4)
    # The native cache fills keys and values of a head, 10 numbers, up to 16 in the values.
    assert NativeEngine(tiny_checkpoint, slots=4, memory_bytes=memory_bytes * 26 // 20).capacity == ids


def test_the_capacity_of_the_reference_is_that_of_its_slots(tiny_checkpoint):
    assert ReferenceEngine(tiny_checkpoint, slots=3).capacity == 3 * 56


def test_around_a_network_there_is_room_for_all_slots(network):
    assert TorchEngine.around(network, slots=2).capacity == 2 * 56


@pytest.mark.parametrize(("positions", "slots"), [(10**9, 8), (3 * 56, 3), (3 * 56 - 1, 2), (0, 1)])
def test_where_all_memory_is_taken_at_once_there_are_the_slots_that_fit(positions, slots):
    assert slots_that_fit(positions, window=56, wanted=8) == slots


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is free")
def test_the_cache_takes_half_of_the_free_memory_at_most():
    free = free_for_cache()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free <= total / 2


# --- memory is taken as rows grow ---

LARGE = ModelConfig(vocab_size=1, window=1024, width=256, layers=2, heads=4, inner_width=4)
MEGABYTE = 1_000_000


def resident_bytes():
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is in memory")
def test_a_cache_takes_memory_where_it_is_written_and_gives_back_what_it_forgets():
    before = resident_bytes()
    cache = KeyValueCache(LARGE, rows=256, device=torch.device("cpu"))  # 1.07 GB
    for row in (2, 3):
        write(cache, row, 1024)  # 4.2 MB
    write(cache, 5, 16)
    assert 8 * MEGABYTE < resident_bytes() - before < 10 * MEGABYTE
    cache.forget_row(2)
    assert resident_bytes() - before < 6 * MEGABYTE
    assert [bool(stored[row].any()) for row in (2, 3, 5) for stored in cache.values] == [False] * 2 + [True] * 4
    assert cache.keys[0][3].all()


def write(cache, row, length):
    for stored in (*cache.keys, *cache.values):
        stored[row, :, :length] = 1


def test_a_cache_too_large_for_any_machine_is_an_error_that_says_what_to_do():
    with pytest.raises(OutOfMemory, match="fewer samples at once"):
        KeyValueCache(LARGE, rows=10**9, device=torch.device("cpu"))
