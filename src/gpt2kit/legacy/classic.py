"""What OpenAI's two sampling scripts print, and the conversation of the one: every prompt stands for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count

from gpt2kit.config.limits import require
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.generate.generator import Generator, in_turn
from gpt2kit.generate.texts import Piece


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
    require_room(length, window)
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
        first = group * nsamples
        print_samples(generator.pieces(prompt, samples=nsamples, first_sample=first, sampling=sampling, stop=stop))
        print("=" * 80)


def print_samples(pieces: Iterable[Piece]) -> None:
    """Print each sample as it grows, one after the other, under its number."""
    begun = 0
    for piece in in_turn(pieces):
        if piece.sample == begun:
            begun += 1
            print("=" * 40 + " SAMPLE " + str(begun) + " " + "=" * 40)
        print(piece.text, end="\n" if piece.completion else "", flush=True)


def require_room(length: int, window: int) -> None:
    """Raise ConfigError for a text of more tokens than the old scripts could write."""
    require(length <= window, f"Can't get samples longer than window size: {window}")


def require_batches(nsamples: int, batch_size: int) -> None:
    """Raise ConfigError unless `nsamples` are whole batches."""
    require(
        min(nsamples, batch_size) >= 1, f"nsamples and batch_size must be 1 or more, got {nsamples} and {batch_size}"
    )
    require(nsamples % batch_size == 0, f"nsamples must be a multiple of batch_size, got {nsamples} and {batch_size}")
