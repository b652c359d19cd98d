"""A file of prompts -> a file of texts: long prompts first, many at once; in the file they stand in the prompts' order.

What is finished goes into a journal beside the output, a line a text. The same call again goes on there; when all are
written, the journal becomes the output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import EngineOptions
from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.data.documents import decode_text
from gpt2kit.errors import DataError, RequestError
from gpt2kit.formats.peft_adapter import sha256_of
from gpt2kit.generate.generator import Generator, Prompt
from gpt2kit.generate.texts import Completion, seeded
from gpt2kit.jobs.generate import require_batch_size
from gpt2kit.jobs.journal import Journal, Place, require_free
from gpt2kit.jobs.load import load
from gpt2kit.progress import Progress, Report, silent
from gpt2kit.tokenizer.protocol import Tokenizer

OURS = ("index", "sample", "text", "reason", "seed", "tokens", "logprobs")
"""What a line of the output says, beside the prompt and whatever else stood beside that."""


@dataclass(frozen=True)
class Asked:
    """One prompt, and the fields that stood beside it."""

    prompt: str | None
    beside: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True)
class Written:
    """What came of it."""

    texts: int
    found: int
    """How many of them an earlier call had finished."""
    tokens: int
    """Written by this call."""
    seed: int


def read_prompts(path: Path) -> list[Asked]:
    """The prompts of a .jsonl file, an object with "prompt" a line; of any other file, a line each. No blank lines.

    Raises DataError: the file cannot be read, holds no prompt, or a line is not what it should be.
    """
    try:
        text = decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path}: holds no prompt; expected one a line")
    if path.suffix.lower() != ".jsonl":
        return [Asked(line.removesuffix("\r"), line=number) for number, line in lines]
    return [_asked(line, f"{path}, line {number}", number) for number, line in lines]


def generate_file(
    model: str | Path | Checkpoint,
    prompts: Sequence[Asked],
    out: Path,
    *,
    samples: int = 1,
    sampling: SamplingConfig | None = None,
    stop: StopConfig | None = None,
    logprobs: int | None = None,
    batch_size: int = 32,
    report: Report = silent,
    **engine: Unpack[EngineOptions],
) -> Written:
    """Continue every prompt `samples` times, each as if it were alone, and write JSON lines in their order to `out`.

    Args:
        logprobs: tell the log-probability of every token, and of so many of the likeliest alternatives.
        The others are those of `jobs.generate`.

    Raises:
        DataError: `out` exists, or its journal belongs to another call.
        DiskFull: what is finished is kept, and the same call goes on from there.
        PromptTooLong: a prompt does not fit and `stop.overflow` forbids to cut it; nothing is written then.
    """
    require(samples >= 1, f"samples must be 1 or more, got {samples}")
    require_batch_size(batch_size)
    require((logprobs or 0) >= 0, f"logprobs must be 0 or more, got {logprobs}")
    sampling, stop = sampling or SamplingConfig(), stop or StopConfig()
    require_free(out)
    with load(model, slots=min(batch_size, samples * len(prompts)), **engine) as generator:
        lengths = _lengths(generator, prompts, sampling, stop)
        seed = seeded(sampling).seed
        assert seed is not None
        with Journal(out, _settings(generator, prompts, samples, sampling, stop, logprobs), seed) as journal:
            sampling, found, tokens = replace(sampling, seed=journal.seed), len(journal.offsets), 0
            wanted = [(index, sample) for index in range(len(prompts)) for sample in range(samples)]
            left = [place for place in wanted if place not in journal.offsets]
            left.sort(key=lambda place: -lengths[place[0]])
            texts = (Prompt(prompts[index].prompt, sample) for index, sample in left)
            for piece in generator.write(texts, sampling=sampling, stop=stop, logprobs=logprobs or 0):
                if completion := piece.completion:
                    index, _ = place = left[piece.sample]
                    journal.append(place, _line(prompts[index], place, completion, generator.tokenizer, logprobs))
                    tokens += len(completion.ids)
                    report(Progress("generate", len(journal.offsets), len(wanted), "text", {"tokens": tokens}))
            journal.end()
    return Written(len(wanted), found, tokens, journal.seed)


def _asked(line: str, where: str, number: int) -> Asked:
    try:
        found = json.loads(line)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # as it will stand in the output
    except UnicodeEncodeError:
        raise DataError(f"{where}: half a character, such as \\ud83d alone; give its other half, or U+FFFD") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("prompt"), str):
        raise DataError(f'{where}: expected an object with a text "prompt", found {line.strip()[:60]}')
    if clash := [name for name in found if name in OURS]:
        raise DataError(f"{where}: the field {clash[0]!r} is one that the output has; give it another name")
    return Asked(found["prompt"], {name: value for name, value in found.items() if name != "prompt"}, number)


def _lengths(generator: Generator, prompts: Sequence[Asked], sampling: SamplingConfig, stop: StopConfig) -> list[int]:
    counts = generator.count_tokens((asked.prompt for asked in prompts), sampling=sampling, stop=stop)
    lengths = []
    for asked in prompts:
        try:
            lengths.append(next(counts))
        except RequestError as error:
            raise type(error)(f"line {asked.line}: {error}" if asked.line else str(error)) from None
    return lengths


def _settings(
    generator: Generator,
    prompts: Sequence[Asked],
    samples: int,
    sampling: SamplingConfig,
    stop: StopConfig,
    logprobs: int | None,
) -> dict[str, Any]:
    """All that decides what the output says."""
    every_prompt = json.dumps([(asked.prompt, asked.beside) for asked in prompts]).encode()
    return {
        "model (sha256)": _model_sha256(generator.checkpoint),
        "tokenizer (sha256)": generator.tokenizer.sha256,
        "prompts (sha256)": hashlib.sha256(every_prompt).hexdigest(),
        "samples": samples,
        "logprobs": logprobs,
        **asdict(sampling),
        **asdict(stop),
    }


def _model_sha256(checkpoint: Checkpoint) -> str:
    """Of the configuration, norms, biases and adapters: training changes them, and they are read at once."""
    digest = hashlib.sha256(repr(checkpoint.config).encode())
    for adapter in checkpoint.adapters:
        digest.update(sha256_of(Path(adapter)).encode())
    for _, tensor in sorted(checkpoint.tensors.items()):
        if len(tensor.shape) == 1:
            digest.update(tensor.read().tobytes())
    return digest.hexdigest()


def _line(
    asked: Asked, place: Place, completion: Completion, tokenizer: Tokenizer, logprobs: int | None
) -> dict[str, Any]:
    index, sample = place
    line = {
        "index": index,
        "sample": sample,
        **asked.beside,
        "prompt": asked.prompt,
        "text": completion.text,
        "reason": completion.reason,
        "seed": completion.seed,
        "tokens": len(completion.ids),
    }
    return line if logprobs is None else {**line, "logprobs": _logprobs(completion, tokenizer)}


def _logprobs(completion: Completion, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    def told(id: int, logprob: float) -> dict[str, Any]:
        return {"id": id, "token": tokenizer.decode([id]), "logprob": logprob}

    tops = completion.top or [()] * len(completion.ids)
    return [
        {**told(id, logprob), "top": [told(*other) for other in top]} if top else told(id, logprob)
        for id, logprob, top in zip(completion.ids, completion.logprobs, tops, strict=True)
    ]
