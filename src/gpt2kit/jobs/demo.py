"""The main job, from text that Python carries: learn a vocabulary, make a model, train it, sample, measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpt2kit.atomic import replace_bytes
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.training import PRESETS, TrainingConfig
from gpt2kit.evaluation.perplexity import Evaluation
from gpt2kit.formats import huggingface
from gpt2kit.generate.texts import Completion
from gpt2kit.hub.catalogue import MODELS
from gpt2kit.jobs.evaluate import evaluate
from gpt2kit.jobs.finetune import Finetuned, finetune
from gpt2kit.jobs.init import init
from gpt2kit.jobs.learn_vocabulary import learn
from gpt2kit.jobs.load import load
from gpt2kit.progress import Report, silent

NAME = "demo"
PLACE = MODELS / NAME
LEARNT, HELD_OUT = PLACE / "learnt.txt", PLACE / "held-out.txt"
VOCAB_SIZE = 512
HELD_OUT_SHARE = 0.05
TRAINING = TrainingConfig(**PRESETS["from-scratch"], validation_share=HELD_OUT_SHARE)
PROMPT = "The "


@dataclass(frozen=True)
class Demo:
    """What came of it."""

    run: Finetuned
    samples: list[Completion]
    evaluation: Evaluation
    """On text that was never learnt from."""


def demo(report: Report = silent, stop_asked: Callable[[], bool] = lambda: False) -> Demo | Finetuned:
    """Learn to write like Python's manual, in models/demo and checkpoint/demo; a second call goes on where it was.

    Returns the unfinished run alone if `stop_asked` ended the training.
    """
    PLACE.mkdir(parents=True, exist_ok=True)
    for path, text in zip((LEARNT, HELD_OUT), embedded_texts(), strict=True):
        replace_bytes(path, text.encode())
    if not huggingface.sniff(PLACE):
        learn([LEARNT], VOCAB_SIZE, PLACE, report)
        init("small", PLACE, PLACE, report=report)
    run = finetune([LEARNT], PLACE, run_name=NAME, training=TRAINING, report=report, stop_asked=stop_asked)
    if run.interrupted:
        return run
    with load(run.directory) as generator:
        sampling = SamplingConfig(temperature=0.8, top_k=40, seed=1)
        samples = generator.generate(PROMPT, samples=3, sampling=sampling, stop=StopConfig(max_new_tokens=60))
    return Demo(run, samples, evaluate(run.directory, HELD_OUT, report=report))


def embedded_texts() -> tuple[str, str]:
    """Python's language reference as every CPython carries it: what is learnt, and the end, held out.

    The reference says much twice; each paragraph is taken once, so that nothing held out is learnt elsewhere.
    """
    from pydoc_data.topics import topics

    paragraphs = list(dict.fromkeys(part for topic in topics.values() for part in topic.strip().split("\n\n")))
    border = len(paragraphs) - round(len(paragraphs) * HELD_OUT_SHARE)
    return "\n\n".join(paragraphs[:border]), "\n\n".join(paragraphs[border:])
