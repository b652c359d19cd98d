"""Documents to one long sequence of ids, the end token after each document."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gpt2kit.data.documents import Document
from gpt2kit.errors import DataError
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.tokenizer.protocol import Tokenizer


def encode_documents(documents: Iterable[Document], tokenizer: Tokenizer, report: Report = silent) -> np.ndarray:
    """All ids in one array, uint16 where the vocabulary allows it, else uint32. Raises DataError if there are none."""
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    parts, done = [np.empty(0, dtype)], 0
    for document in documents:
        parts.append(np.array([*tokenizer.encode(document.text), tokenizer.end_id], dtype))
        done += len(document.text)
        report(Progress("encode", done, None, "character", {}))
    if len(parts) == 1:
        raise DataError("there is no document to learn from")
    return np.concatenate(parts)
