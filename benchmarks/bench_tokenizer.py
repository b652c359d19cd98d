"""Our tokenizer beside tiktoken alone on 100 MB of English, Chinese and code, one process, in pieces of 1 MB.

Each of 15 rounds gives both the same share of the text. Needs ../shared/data and the standard library's sources.
"""

from __future__ import annotations

import sysconfig
import time
from pathlib import Path

import tiktoken
from turns import heading, in_turn

from gpt2kit.tokenizer.byte_level import PATTERN, ByteLevelBPE
from gpt2kit.tokenizer.vocabulary import read_vocabulary

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
TEXT_BYTES, PIECE_CHARACTERS, ROUNDS = 100_000_000, 1_000_000, 15


def main() -> None:
    files = {name: (DATA / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    vocabulary = read_vocabulary(files, str(DATA))
    ours = ByteLevelBPE(vocabulary)
    alone = tiktoken.Encoding("alone", pat_str=PATTERN, mergeable_ranks=vocabulary.mergeable(), special_tokens={})
    pieces = text_pieces()
    assert ours.encode(pieces[0]) == alone.encode_ordinary(pieces[0])
    heading(f"tokenizer, {TEXT_BYTES // 10**6} MB, beside tiktoken {tiktoken.__version__}")
    in_turn(
        lambda number: rate(ours.encode, pieces[number::ROUNDS]),
        lambda number: rate(alone.encode_ordinary, pieces[number::ROUNDS]),
        "MB/s",
        ROUNDS,
    )


def text_pieces() -> list[str]:
    library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    sources = [*(path for path in sorted(DATA.rglob("*.txt"))), *library]
    whole = "\n".join(path.read_text("utf-8") for path in sources)
    whole *= TEXT_BYTES // len(whole.encode()) + 1
    whole = whole.encode()[:TEXT_BYTES].decode("utf-8", errors="ignore")
    return [whole[at : at + PIECE_CHARACTERS] for at in range(0, len(whole), PIECE_CHARACTERS)]


def rate(encode, pieces: list[str]) -> float:
    size = sum(len(piece.encode()) for piece in pieces)
    started = time.perf_counter()
    for piece in pieces:
        encode(piece)
    return size / 1e6 / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
