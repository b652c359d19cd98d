"""Measure how well a model predicts a text file."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from gpt2kit.config.engine import EngineOptions
from gpt2kit.data.documents import read_text
from gpt2kit.evaluation.perplexity import Evaluation, evaluate_text
from gpt2kit.jobs.load import load
from gpt2kit.progress import Report, silent


def evaluate(
    model: str | Path,
    file: str | Path,
    *,
    report: Report = silent,
    **engine: Unpack[EngineOptions],
) -> Evaluation:
    """Perplexity and bits per byte of `model` on the text in `file`: every token once, context carried along."""
    text = read_text(Path(file))
    with load(model, slots=1, **engine) as generator:
        return evaluate_text(generator, text, report)
