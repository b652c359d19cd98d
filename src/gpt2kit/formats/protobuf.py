"""Protocol Buffers on the wire: the fields of a message from anywhere, and writing fields.

A message is a row of fields: varint (number << 3 | kind), then by kind
    0  varint: 7 bits a byte, lowest first, at most 10 bytes; a negative number n stands as 2**64 + n
    1  8 bytes        2  varint length and that many bytes        5  4 bytes
Zeros are left out. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


class Message:
    """The fields of one message by number. Every door raises ValueError where the content is not such a message."""

    def __init__(self, content: bytes) -> None:
        self.fields: dict[int, list[int | bytes]] = {}
        for field, value in fields_within(content, 0, len(content)):
            self.fields.setdefault(field, []).append(content[value] if isinstance(value, slice) else value)

    def number(self, field: int) -> int:
        """The last number stored under `field`, unsigned; 0 if there is none."""
        last = self.fields.get(field, [0])[-1]
        if isinstance(last, bytes):
            raise ValueError(f"field {field} holds {len(last)} bytes; expected a number")
        return last

    def signed(self, field: int) -> int:
        """The last number stored under `field`, as an int64."""
        number = self.number(field)
        return number - 2**64 if number >= 2**63 else number

    def parts(self, field: int) -> list[bytes]:
        """Everything stored under `field`: strings or messages."""
        parts = []
        for value in self.fields.get(field, []):
            if not isinstance(value, bytes):
                raise ValueError(f"field {field} holds the number {value}; expected bytes")
            parts.append(value)
        return parts


def read_varint(content: bytes | memoryview, at: int, end: int | None = None) -> tuple[int, int]:
    """The varint at `at`, and where it ends, `end` at most. Raises ValueError."""
    end = len(content) if end is None else end
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it ends inside a number")
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number % 2**64, at
    raise ValueError("a number of more than 10 bytes")


def varint(number: int) -> bytes:
    """`number`, 0 or more, as a varint."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def number_field(field: int, number: int) -> bytes:
    """A field that holds a number, 0 or more; empty for 0."""
    return varint(field << 3 | VARINT) + varint(number) if number else b""


def fixed32_field(field: int, number: int) -> bytes:
    """A field that holds a number of 4 bytes; empty for 0."""
    return varint(field << 3 | FIXED32) + number.to_bytes(4, "little") if number else b""


def bytes_field(field: int, content: bytes) -> bytes:
    """A field that holds a string or a message."""
    return varint(field << 3 | LENGTH_DELIMITED) + varint(len(content)) + content


def fields_within(content: bytes | memoryview, begin: int, end: int) -> Iterator[tuple[int, int | slice]]:
    """The fields of the message from `begin` to `end`: number, or where its bytes are. Raises ValueError on the way."""
    at = begin
    while at < end:
        key, at = read_varint(content, at, end)
        field, kind = key >> 3, key & 7
        if kind == VARINT:
            number, at = read_varint(content, at, end)
            yield field, number
            continue
        if kind == LENGTH_DELIMITED:
            size, at = read_varint(content, at, end)
        elif kind in FIXED_BYTES:
            size = FIXED_BYTES[kind]
        else:
            raise ValueError(f"field {field} is of kind {kind}; known are 0, 1, 2 and 5")
        if at + size > end:
            raise ValueError(f"field {field} takes {size} bytes, but {end - at} are left")
        part, at = slice(at, at + size), at + size
        yield field, part if kind == LENGTH_DELIMITED else int.from_bytes(content[part], "little")
