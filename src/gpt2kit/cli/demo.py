"""gpt2 demo: the main job, end to end, on text that Python carries."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from shutil import which


@dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """Learn a vocabulary, train a small model and sample from it.

    Takes Python's own language reference (465 KB, part of Python) and needs no download. Writes models/demo and
    checkpoint/demo in the current directory; run again, it goes on where it was.
    """

    def __call__(self) -> int:
        """Run the demo and print what came of it."""
        from gpt2kit.cli.terminal import drawing, tell_saving
        from gpt2kit.jobs.demo import HELD_OUT, NAME, PROMPT, Demo, demo
        from gpt2kit.jobs.interruptible import Interruptible

        with drawing() as report, Interruptible(report, tell_saving) as interruptible:
            outcome = demo(interruptible.report, interruptible)
        if not isinstance(outcome, Demo):
            print(f"stopped at step {outcome.step:,}; to go on: gpt2 demo")
            return 130
        run = outcome.run
        if not run.new_steps:
            print(f"found a trained model in {run.directory}; remove it to train anew")
        for number, sample in enumerate(outcome.samples, 1):
            print(f"\n{'=' * 40} SAMPLE {number} {'=' * 40}\n{PROMPT}{sample.text}")
        print("\n" + "=" * 89)
        print(f"run              {run.directory}, step {run.step:,}, validation loss {run.validation_loss:.3f}")
        print(f"held-out text    perplexity {outcome.evaluation.perplexity:.2f} a token", end="")
        print(f", {outcome.evaluation.bits_per_byte:.3f} bits a byte")
        print(f"curve            {run.directory / 'loss.png'}")
        # `make demo` runs it in an environment that the reader's shell does not know.
        started = Path(sys.argv[0])
        hidden = not which("gpt2") and started.stem == "gpt2"
        gpt2 = os.path.relpath(started) if hidden else "gpt2"
        print("\nThree things to try next:")
        print(f'  {gpt2} generate "A class is" --model {NAME} --temperature 0.7 --nsamples 3')
        print(f"  {gpt2} evaluate {NAME} {HELD_OUT}")
        print(f"  {gpt2} finetune YOUR.txt --model {NAME} --run-name mine --steps 300")
        return 0
