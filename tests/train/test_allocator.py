import subprocess
import sys

import pytest

from gpt2kit.train.allocator import keep_freed_memory

# 96 MB come and go three times; every page that is touched for the first time costs a fault.
PROGRAM = """
import ctypes, resource, sys
from gpt2kit.train.allocator import keep_freed_memory

malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    place = malloc(96 << 20)
    ctypes.memset(place, 1, 96 << 20)
    free(place)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * resource.getpagesize() >> 20)
"""


def faults_and_memory(mode):
    """Page faults of each of three rounds, and the megabytes that the process has after them."""
    result = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return list(map(int, result.stdout.split()))


@pytest.mark.skipif(not keep_freed_memory(), reason="no glibc")
def test_memory_given_back_is_kept_and_costs_no_second_fault():
    first, second, third, megabytes = faults_and_memory("keep")
    assert first > 20
    assert second == third == 0
    assert megabytes > 96


@pytest.mark.slow
@pytest.mark.skipif(not keep_freed_memory(), reason="no glibc")
def test_without_it_every_page_is_paid_for_again():
    """Else the test above would show nothing."""
    _, second, third, megabytes = faults_and_memory("leave")
    assert min(second, third) > 20
    assert megabytes < 96
