"""Fetch a model: its files, verified one by one and then, where they hold checksums, tensor by tensor."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.errors import DownloadError, FormatError, WeightMismatch
from gpt2kit.formats.registry import detect
from gpt2kit.hub.catalogue import KNOWN_MODELS, MODELS, KnownModel
from gpt2kit.hub.manifest import is_complete, read_entries, write_manifest
from gpt2kit.hub.model_folder import ModelFolder, reserved
from gpt2kit.hub.order import Order, Source, place_order
from gpt2kit.hub.web import Web
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.tokenizer.open import holds_tokenizer, open_tokenizer


@dataclass(frozen=True)
class Downloaded:
    """A model that is complete on disk."""

    folder: Path
    files: int
    size_bytes: int
    new: bool
    """False where all was there, and nothing was asked of anybody."""


def download(
    name: str,
    *,
    source: Source | None = None,
    endpoint: str | None = None,
    models: Path = MODELS,
    catalogue: Sequence[KnownModel] | None = None,
    report: Report = silent,
) -> Path:
    """Fetch a model, go on with a download that was broken off, or find that all is there. Returns its directory.

    Args:
        name: one that OpenAI or the hub uses ("124M", "117M", "gpt2-medium", "distilgpt2"), or "hf:owner/name".
        source: "openai" or "huggingface"; by default the one that uses the name, or that the directory came from.
        endpoint: the address of a mirror; for the hub also in the environment, as HF_ENDPOINT.
        models: the directory that gets a directory of this name.
        catalogue: what is known of released models; None takes what gpt2kit knows of them.
        report: told how far it is.

    Raises:
        ModelNotFound: the name means nothing.
        ConfigError: the source has no such model, or its address is none.
        DownloadError: network trouble, or what came is not the model.
        DiskFull: what has come is kept.
        RunLocked: another process is downloading into the same directory.
    """
    known = KNOWN_MODELS if catalogue is None else catalogue
    order = place_order(name, source=source, endpoint=endpoint, models=models, catalogue=known)
    return carry_out(order, report).folder


def carry_out(order: Order, report: Report = silent) -> Downloaded:
    """Do what `place_order` worked out. Raises what `download` does."""
    new = not is_complete(order.folder)
    if new:
        with reserved(order.folder), Web(order.base, order.token) as web:
            if not is_complete(order.folder):  # by another process, a moment ago
                entries = ModelFolder(order, web, report).fill()
                _check(order, report)
                write_manifest(order.folder, order.name, order.source, entries)
    sizes = [entry.promise.size or 0 for entry in read_entries(order.folder).values()]
    return Downloaded(order.folder, len(sizes), sum(sizes), new)


def _check_vocabulary(checkpoint: Checkpoint) -> None:
    try:
        open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
    except FormatError as error:  # perhaps of another kind than GPT-2's: the weights are good all the same
        warnings.warn(f"the vocabulary cannot be used: {error}", stacklevel=2)


def _check(order: Order, report: Report) -> None:
    """Open what came as a model; where its files hold checksums, hold every tensor against its own."""
    try:
        checkpoint = detect(order.folder).module.read(order.folder)
        if holds_tokenizer(checkpoint.tokenizer_files):
            _check_vocabulary(checkpoint)
        tensors = checkpoint.tensors.values() if order.source == "openai" else ()
        total, done = sum(tensor.size_bytes for tensor in tensors), 0
        for tensor in tensors:
            tensor.read()
            done += tensor.size_bytes
            report(Progress(f"verify {order.name}", done, total, "byte"))
    except (FormatError, WeightMismatch) as error:
        raise DownloadError(
            f"{error}; the file came damaged, or its neighbours are of another model: remove it and repeat the command"
        ) from None
