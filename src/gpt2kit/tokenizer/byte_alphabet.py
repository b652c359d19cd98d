"""How vocabulary files spell bytes: one printable character a byte.

Source: `bytes_to_unicode` in github.com/openai/gpt-2/src/encoder.py. Printable Latin-1 bytes stand for themselves;
the other 68 are written as the characters from U+0100 on, in order of the byte.
"""

from __future__ import annotations

PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
UNPRINTABLE = [byte for byte in range(256) if byte not in PRINTABLE]
# The order is also that of the first 256 ids of GPT-2's vocabulary.
BYTE_OF = {chr(byte): byte for byte in PRINTABLE} | {chr(0x100 + n): byte for n, byte in enumerate(UNPRINTABLE)}


def spelled_bytes(token: str) -> bytes:
    """The bytes that `token` spells. Raises KeyError for a character outside the alphabet."""
    return bytes([BYTE_OF[character] for character in token])
