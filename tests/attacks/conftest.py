"""Damage of every kind, done to good files: a reader reads them or refuses them with an error of ours, nothing else."""

import os
import random
import struct
import time
from collections import Counter

import pytest

from gpt2kit.errors import Gpt2kitError

# Lengths, counts and offsets that overflow, turn negative or ask for more than there is.
ODD_NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
SLOWEST_SECONDS = 20
FEW = 1000


@pytest.fixture(scope="session")
def fuzz_count():
    """How many mutations each attack makes; GPT2KIT_FUZZ asks for more."""
    return int(os.environ.get("GPT2KIT_FUZZ", str(FEW)))


@pytest.fixture(scope="session")
def mutations():
    """mutations(original, count, seed): pairs of a seed and what it makes of `original`, each time the same."""

    def numbered(original, count, seed=0):
        for number in range(seed, seed + count):
            yield number, mutated(original, random.Random(number))

    return numbered


@pytest.fixture
def survives(mutations, fuzz_count, capsys):
    """survives(original, open_and_read, seed): each mutation is read or refused with a Gpt2kitError, soon."""

    def attacked(original, open_and_read, seed=0):
        outcomes, began = Counter(), time.monotonic()
        for number, content in mutations(original, fuzz_count, seed):
            start = time.monotonic()
            outcomes[outcome(open_and_read, content, number)] += 1
            assert time.monotonic() - start < SLOWEST_SECONDS, f"seed {number} took {time.monotonic() - start:.0f} s"
        with capsys.disabled():
            if fuzz_count > FEW:
                print(f"\n{fuzz_count} mutations in {time.monotonic() - began:.0f} s: {dict(outcomes.most_common())}")
        return outcomes

    return attacked


def outcome(open_and_read, content, number):
    try:
        open_and_read(content)
    except Gpt2kitError as error:
        return type(error).__name__
    except BaseException as error:
        error.add_note(f"the file that seed {number} makes")
        raise
    return "accepted"


def mutated(original, draw):
    """`original` with one to four wounds, as `draw` decides."""
    content = bytearray(original)
    for _ in range(draw.choice([1, 1, 1, 2, 2, 3, 4])):
        draw.choice(WOUNDS)(content, draw)
    return bytes(content)


def flip_a_bit(content, draw):
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def overwrite_some_bytes(content, draw):
    at = draw.randrange(len(content) + 1)
    chunk = draw.randbytes(draw.choice([1, 1, 2, 4, 8, 64]))
    content[at : at + len(chunk)] = chunk


def overwrite_with_an_odd_number(content, draw):
    at, layout = draw.randrange(len(content) + 1), draw.choice(["<B", "<H", "<I", "<Q", ">H", ">I", ">Q"])
    size = struct.calcsize(layout)
    number = draw.choice([*ODD_NUMBERS, len(content)]) % 2 ** (8 * size)
    content[at : at + size] = struct.pack(layout, number)


def overwrite_with_an_odd_varint(content, draw):
    at, number, encoded = draw.randrange(len(content) + 1), draw.choice([*ODD_NUMBERS, len(content)]), bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    content[at : at + draw.choice([1, len(encoded)])] = encoded


def step_a_byte(content, draw):
    if content:
        at = draw.randrange(len(content))
        content[at] = (content[at] + draw.choice([-1, 1])) % 256


def cut_the_end(content, draw):
    del content[draw.randrange(len(content) + 1) :]


def delete_a_chunk(content, draw):
    at = draw.randrange(len(content) + 1)
    del content[at : at + draw.choice([1, 2, 4, 8, 100, 1000])]


def insert_a_chunk(content, draw):
    at = draw.randrange(len(content) + 1)
    content[at:at] = draw.choice([draw.randbytes(draw.choice([1, 2, 8, 100])), bytes(draw.choice([1, 4, 8, 100]))])


def repeat_a_chunk_elsewhere(content, draw):
    source, at = draw.randrange(len(content) + 1), draw.randrange(len(content) + 1)
    chunk = content[source : source + draw.choice([1, 4, 16, 100, 1000])]
    content[at : at + draw.choice([0, len(chunk)])] = chunk


WOUNDS = (
    flip_a_bit,
    flip_a_bit,
    overwrite_some_bytes,
    overwrite_with_an_odd_number,
    overwrite_with_an_odd_varint,
    step_a_byte,
    cut_the_end,
    delete_a_chunk,
    insert_a_chunk,
    repeat_a_chunk_elsewhere,
)
