"""Measure how well a model predicts a text file."""

from __future__ import annotations

from pathlib import Path

from gpt2kit.data.documents import read_text
from gpt2kit.evaluation.perplexity import Evaluation, evaluate_text
from gpt2kit.generate.select import DeviceName, EngineName
from gpt2kit.jobs.load import load
from gpt2kit.progress import Report, silent


def evaluate(
    model: str | Path,
    file: str | Path,
    *,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
    report: Report = silent,
) -> Evaluation:
    """Perplexity and bits per byte of `model` on the text in `file`: every token once, context carried along."""
    text = read_text(Path(file))
    with load(model, engine=engine, device=device, slots=1) as generator:
        return evaluate_text(generator, text, report)
