"""The conversation of OpenAI's interactive_conditional_samples.py: every prompt stands for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.generate.generator import Generator, in_turn


def converse(
    generator: Generator,
    read: Callable[[str], str],
    sampling: SamplingConfig,
    stop: StopConfig,
    *,
    nsamples: int,
    length: int | None,
) -> None:
    """Answer prompts until the input ends.

    As there, the end token ends no text, the chain is "openai" in place of "standard", and every group of samples has
    its own randomness. Other than there, prompt and text together may exceed the window, and Ctrl-D is no error.
    """
    window = generator.checkpoint.config.window
    length = window // 2 if length is None else length
    require(length <= window, f"Can't get samples longer than window size: {window}")
    stop = replace(stop, max_new_tokens=length, ignore_end=True)
    if sampling.chain == "standard":
        sampling = replace(sampling, chain="openai")
    for group in count():
        try:
            while not (prompt := read("Model prompt >>> ")):
                print("Prompt should not be empty!")
        except EOFError:
            print()
            return
        begun = 0
        pieces = generator.pieces(prompt, samples=nsamples, first_sample=group * nsamples, sampling=sampling, stop=stop)
        for piece in in_turn(pieces):
            if piece.sample == begun:
                begun += 1
                print("=" * 40 + " SAMPLE " + str(begun) + " " + "=" * 40)
            print(piece.text, end="\n" if piece.completion else "", flush=True)
        print("=" * 80)
