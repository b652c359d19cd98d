"""What nshepperd's train.py and gpt_2_simple's finetune have in common: their lines on the console, their samples."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.data.batches import Corpus
from gpt2kit.errors import ConfigError
from gpt2kit.formats import huggingface, openai
from gpt2kit.formats.registry import recognise
from gpt2kit.generate.generator import Generator
from gpt2kit.jobs.finetune import Plan
from gpt2kit.progress import Progress
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run

OPTIMIZERS = {"adam": "adamw", "sgd": "sgd"}
MEMORY = 0.99  # of the average loss, from one printed step to the next


class TrainingLines:
    """The console of both trainers: `announce`, `on_event` and `report` are for `finetune`."""

    def __init__(self, run: Run, *, print_every: int, save_every: int | None = None) -> None:
        """`save_every`: when `show_last` has to wait for a save."""
        self._run, self._print_every, self._save_every = run, print_every, save_every
        self._started = time.time()
        self._losses = self._weights = 0.0
        self._waiting: tuple[str, str] | None = None  # a text, and the event that it is shown behind

    def announce(self, plan: Plan) -> None:
        """All that comes before the first step: three files that the old programs want in a run, four lines."""
        write_old_surroundings(self._run)
        if plan.set_aside:
            print("begins again; what the run had is kept in", plan.set_aside, file=sys.stderr)
        say("Loading checkpoint", old_name(self._run.directory, plan.done) if plan.done else spoken(plan.origin))
        say("Loading dataset...")
        say("dataset has", plan.tokens, "tokens")
        say("Training...")
        self._started = time.time()

    def report(self, progress: Progress) -> None:
        """Says that validation begins, which is nshepperd's line only."""
        if progress.task == "validate" and progress.done == 0:
            say("Calculating validation loss...")

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Print the line that belongs to an event, if there is one."""
        step, kind = event["step"], event["event"]
        if kind == "train" and step % self._print_every == 0:
            self._losses = MEMORY * self._losses + event["loss"]
            self._weights = MEMORY * self._weights + 1
            average = self._losses / self._weights
            say(f"[{step} | {self._seconds():2.2f}] loss={event['loss']:2.2f} avg={average:2.2f}")
        elif kind == "validation":
            say(f"[{max(1, step)} | {self._seconds():2.2f}] validation loss = {event['loss']:2.2f}")
        elif kind == "save":
            say("Saving", old_name(self._run.directory, step))
        if self._waiting and self._waiting[0] == kind:
            say(self._waiting[1])
            self._waiting = None

    def show_last(self, step: int, text: str) -> None:
        """Print a sample behind the other lines of its step."""
        due = {"save": self._save_every and step % self._save_every == 0, "train": step % self._print_every == 0}
        last = next((kind for kind, is_due in due.items() if is_due), None)
        if last:
            self._waiting = last, text
        else:
            say(text)

    def _seconds(self) -> float:
        return time.time() - self._started


class OldSamples:
    """Writes samples/RUN/samples-N as the old programs did: each text goes on from one random token of the dataset."""

    def __init__(
        self,
        run: Run,
        *,
        number: int,
        length: int,
        sampling: SamplingConfig,
        every: int,
        last: int,
        ahead: int,
        stop_asked: Callable[[], bool],
        says: str = "",
        show: Callable[[int, str], None] = lambda step, text: say(text),
    ) -> None:
        """A SampleWriter.

        Args:
            run: whose samples they are.
            number: how many texts.
            length: of a text, in tokens, behind the one that it goes on from.
            sampling: how tokens are chosen; the seed is made of the step.
            every: steps between two samples; 0 writes none.
            last: the last step, which has none.
            ahead: how far the program's own count, which the file is named after, is ahead of the steps done.
            stop_asked: True gives the sample up.
            says: a line before it begins.
            show: prints the last of the texts.

        Raises:
            ConfigError: there is nothing to write.
        """
        require(number >= 1, f"sample_num must be 1 or more, got {number}")
        require(length >= 1, f"sample_length must be 1 or more, got {length}")
        self._run, self._number, self._sampling = run, number, sampling
        self._stop = StopConfig(max_new_tokens=1 + length, ignore_end=True)
        self._every, self._last, self._ahead, self._stop_asked = every, last, ahead, stop_asked
        self._says, self._show = says, show

    def __call__(self, generator: Generator, learnt: Corpus, step: int) -> str | None:
        """What the model wrote, or None if it is not the time."""
        if not self._every or step % self._every or step >= self._last:
            return None
        if self._says:
            say(self._says)
        texts = self._texts(generator, learnt, step)
        if texts is None:
            return None
        blocks = [f"======== SAMPLE {number} ========\n{text}\n" for number, text in enumerate(texts, 1)]
        self._run.save_sample(step + self._ahead, "\n".join(blocks))
        self._show(step, blocks[-1])
        return "\n".join(blocks)

    def _texts(self, generator: Generator, learnt: Corpus, step: int) -> list[str] | None:
        place = np.random.default_rng(step).integers(learnt.total, size=1)
        # Not as a prompt: one token may be a part of a character.
        sampling = replace(self._sampling, forced_ids=(int(learnt.take(place)[0]),), seed=step)
        texts = [""] * self._number
        for piece in generator.pieces(samples=self._number, sampling=sampling, stop=self._stop):
            texts[piece.sample] += piece.text
            if self._stop_asked():
                return None
        return texts


def say(*words: object) -> None:
    """Print a line of a training. Where nobody reads any more (tee dies of Ctrl-C, too), it goes on to be saved."""
    try:
        print(*words, flush=True)
    except RuntimeError:  # Ctrl-C came while another line was being printed
        pass
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def going_on_from(run: Run, restore_from: str) -> Checkpoint | None:
    """What `finetune` will go on from: the newest whole step of the run, or another program's. None begins anew."""
    if restore_from != "latest":
        return None
    step, _ = run.newest_sound()
    return open_checkpoint(run.directory, step=step) if step is not None or recognise(run.directory) else None


def old_run(checkpoint_dir: str, run_name: str) -> Run:
    """The run CHECKPOINT_DIR/RUN_NAME, whose name may have been "" or a path."""
    place = Path(checkpoint_dir, run_name)
    return Run.named(place.name, place.parent)


def write_old_surroundings(run: Run) -> None:
    """Put hparams.json, encoder.json and vocab.bpe into a run, where old scripts look for them."""
    config = huggingface.read_config(run.directory / huggingface.CONFIG)
    files = huggingface.read_tokenizer_files(run.directory)
    try:
        openai.write_surroundings(Checkpoint(config, {}, files, str(run.directory)), run.directory)
    except ConfigError as error:
        warnings.warn(f"{run.directory}: is not for old programs: {error}", stacklevel=2)


def old_name(run: Path, step: int) -> str:
    """What the old programs called the checkpoint of a step; `resolve.py` knows it still."""
    return str(run / f"model-{step}")


def spoken(origin: str) -> str:
    """How the old programs named a model: by its files, where they are OpenAI's."""
    prefix = Path(origin, "model.ckpt")
    return str(prefix) if prefix.with_name("model.ckpt.index").is_file() else origin
