"""How the server's process holds and gives back memory; each test in a process of its own, for it changes all of it."""

import subprocess
import sys
from textwrap import dedent

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the heap is glibc's"),
    pytest.mark.slow,  # a process a test
]


def run(program, *arguments):
    command = [sys.executable, "-c", dedent(program), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout


HEAPS = """
    import ctypes, sys, threading
    from gpt2kit.serve.memory import keep_one_heap

    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
    if sys.argv[1:]:
        keep_one_heap()
    meet = threading.Barrier(4)
    threads = [threading.Thread(target=lambda: (libc.malloc(1000), meet.wait())) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    stdout = libc.fopen(b"/dev/stdout", b"w")
    libc.malloc_info(0, ctypes.c_void_p(stdout))
    libc.fflush(ctypes.c_void_p(stdout))
"""


def test_four_threads_at_once_share_one_heap():
    heaps, heaps_kept = run(HEAPS).count("<heap nr="), run(HEAPS, "keep one").count("<heap nr=")
    assert heaps > heaps_kept == 1


def test_unused_pages_in_the_middle_of_the_heap_go_back_to_the_system():
    before, after = map(
        int,
        run("""
            import ctypes
            from pathlib import Path
            from gpt2kit.serve.memory import give_back_unused

            libc = ctypes.CDLL(None)
            libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
            blocks = [libc.malloc(50_000) for _ in range(2000)]
            [ctypes.memset(block, 1, 50_000) for block in blocks]
            [libc.free(block) for block in blocks[:-1]]  # the last holds the heap's end where it is
            print(resident())
            give_back_unused()
            print(resident())
        """).split(),
    )
    assert before - after > 80e6
