"""Learn a vocabulary from text files and write it to a directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gpt2kit.atomic import replace_bytes
from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.documents import read_pieces
from gpt2kit.data.parcels import Texts, pack
from gpt2kit.data.sources import find_sources
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.tokenizer.byte_level import find_border
from gpt2kit.tokenizer.learn import learn_vocabulary
from gpt2kit.tokenizer.open import open_tokenizer
from gpt2kit.tokenizer.protocol import Tokenizer


def learn(
    inputs: Sequence[str | Path],
    vocab_size: int,
    directory: Path,
    report: Report = silent,
    *,
    reading: ReadingConfig | None = None,
) -> Tokenizer:
    """Learn at most `vocab_size` tokens from texts and write the files of the vocabulary to `directory`."""
    files = learn_vocabulary(_texts(inputs, reading or ReadingConfig()), vocab_size)
    tokenizer = open_tokenizer(files, str(directory))
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        replace_bytes(directory / name, content)
    report(Progress("vocabulary", tokenizer.vocab_size, tokenizer.vocab_size, "token"))
    return tokenizer


def _texts(inputs: Sequence[str | Path], reading: ReadingConfig) -> Iterator[str]:
    """All documents, in stretches that may be learnt from one by one."""
    for parcel in pack(read_pieces(find_sources(inputs), reading), find_border):
        assert isinstance(parcel, Texts), "without a tokenizer no ids are read"
        yield from parcel.texts
