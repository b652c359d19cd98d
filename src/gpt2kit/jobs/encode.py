"""Encode texts once, so that training begins at once: into shards, or an .npz for the old programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data.encode import encode_to_shards
from gpt2kit.data.npz import encode_to_npz
from gpt2kit.formats.huggingface import read_tokenizer_files
from gpt2kit.progress import Report, silent
from gpt2kit.resolve import open_checkpoint
from gpt2kit.tokenizer.open import holds_tokenizer, open_tokenizer
from gpt2kit.tokenizer.protocol import Tokenizer


@dataclass(frozen=True)
class EncodedTexts:
    """Where the ids lie, and how many there are."""

    path: Path
    tokens: int
    documents: int
    """In an .npz: arrays made from text."""
    text_bytes: int
    """UTF-8; what came as ids counts nothing."""
    new: bool
    """False where all was done before."""

    @property
    def bytes_per_token(self) -> float:
        """How much text a token holds."""
        return self.text_bytes / self.tokens


def encode(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    model: str | Path = "124M",
    reading: ReadingConfig | None = None,
    workers: int = 0,
    overwrite: bool = False,
    report: Report = silent,
) -> EncodedTexts:
    """Encode texts into the directory `output`, or the file, if its name ends in .npz; it appears when all is done.

    The same call after a crash goes on where it was; where all is done already, it is left as it is.

    Args:
        inputs: files (.txt, .md, .jsonl, .csv, .parquet, .npz; .gz and .zst of texts), directories, globs, shards, or
            "-" for standard input.
        output: what to make.
        model: whose vocabulary: a model, or a directory that holds a vocabulary.
        reading: which encoding, which field or column, what is joined, what stands between documents.
        workers: threads; 0 takes one a core.
        overwrite: replace another encoding in `output`.
        report: told how far it is.

    Raises:
        ConfigError: `output` holds something else.
        RunLocked: another process is writing it.
        DataError, FormatError, MissingExtra, DiskFull: an input cannot be used, or the disk is full.
        ModelNotFound: nothing answers to `model`.
    """
    path, tokenizer = Path(output), open_vocabulary(model)
    if path.suffix == ".npz":
        journal = encode_to_npz(
            inputs,
            tokenizer,
            path,
            reading=reading,
            workers=workers,
            overwrite=overwrite,
            report=report,
        )
        return EncodedTexts(path, journal.tokens, journal.documents, journal.text_bytes, True)
    before = path.stat().st_ino if path.is_dir() else None
    shards = encode_to_shards(
        inputs, tokenizer, path, reading=reading, workers=workers, overwrite=overwrite, report=report
    )
    new = path.stat().st_ino != before  # what was found complete is left in its place
    return EncodedTexts(path, shards.total, shards.ends.size, shards.text_bytes, new)


def open_vocabulary(model: str | Path) -> Tokenizer:
    """The tokenizer of a model, or of a directory that holds only a vocabulary."""
    place = Path(model)
    if place.is_dir() and holds_tokenizer(files := read_tokenizer_files(place)):
        return open_tokenizer(files, str(place))
    checkpoint = open_checkpoint(model)
    return open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
