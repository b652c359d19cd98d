"""Learn a vocabulary from text files and write it to a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpt2kit.atomic import replace_bytes
from gpt2kit.data.documents import read_documents
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.tokenizer.learn import learn_vocabulary
from gpt2kit.tokenizer.open import open_tokenizer
from gpt2kit.tokenizer.protocol import Tokenizer


def learn(inputs: Sequence[str | Path], vocab_size: int, directory: Path, report: Report = silent) -> Tokenizer:
    """Learn at most `vocab_size` tokens from text files and write the files of the vocabulary to `directory`."""
    files = learn_vocabulary((document.text for document in read_documents(inputs)), vocab_size)
    tokenizer = open_tokenizer(files, str(directory))
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        replace_bytes(directory / name, content)
    report(Progress("vocabulary", tokenizer.vocab_size, tokenizer.vocab_size, "token"))
    return tokenizer
