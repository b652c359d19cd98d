"""1,000 prompts of unequal length, random 124M in fp32, torch engine: many at once beside one by one.

Both are `Generator.write` on the same texts, 16 new tokens each, greedy; only the slots differ (32 and 1).
Prompts are 3 to 80 words in a row of WikiText-2, so no two begin alike. Where texts differ, the first difference is
looked up: the margin between the two likeliest tokens must be below 1e-3, where torch promises nothing.
Usage: bench_batch.py [prompts a round [rounds [slots]]]. Needs ../shared/data.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import torch
from turns import heading, in_turn

from gpt2kit.config.model import SIZES
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.generate.generator import Generator, Prompt
from gpt2kit.generate.texts import Completion
from gpt2kit.generate.torch_engine import TorchEngine
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.tokenizer.open import open_tokenizer

DATA = Path(__file__).parents[2] / "shared" / "data"
GREEDY = SamplingConfig(temperature=0, seed=0)
STOP = StopConfig(max_new_tokens=16, ignore_end=True)
CLEAR = 1e-3


def main() -> None:
    size, rounds, slots = (*map(int, sys.argv[1:]), *(100, 10, 32)[len(sys.argv) - 1 :])
    torch.set_num_threads(2)
    files = {name: (DATA / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    tokenizer = open_tokenizer(files, str(DATA))
    checkpoint = initial_checkpoint(SIZES["124M"].config(tokenizer.vocab_size), files, 0)
    many, single = (Generator(checkpoint, tokenizer, TorchEngine(checkpoint, count)) for count in (slots, 1))
    words, chance = (DATA / "wikitext-2.test.txt").read_text(encoding="utf-8").split(), random.Random(0)
    starts = [chance.randrange(len(words) - 80) for _ in range(size * (rounds + 1))]
    prompts = [" ".join(words[start : start + chance.randint(3, 80)]) for start in starts]
    texts: dict[Generator, dict[int, Completion]] = {many: {}, single: {}}

    def rate(generator: Generator, number: int, at_once: int) -> float:
        """Prompts a second on the prompts of this round."""
        places = range(number * size, (number + 1) * size)
        started = time.perf_counter()
        for first in range(0, size, at_once):
            group = places[first : first + at_once]
            for piece in generator.write((Prompt(prompts[place]) for place in group), sampling=GREEDY, stop=STOP):
                if piece.completion:
                    texts[generator][group[piece.sample]] = piece.completion
        return size / (time.perf_counter() - started)

    rate(many, rounds, size), rate(single, rounds, size)  # the first use of memory costs more
    texts[many].clear(), texts[single].clear()
    del prompts[size * rounds :]
    lengths = sorted(len(tokenizer.encode(prompt)) for prompt in prompts)
    heading(
        f"{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens (median {lengths[len(lengths) // 2]}), "
        f"{slots} at once beside one by one, random 124M fp32, torch {torch.__version__}"
    )
    in_turn(lambda number: rate(many, number, size), lambda number: rate(single, number, 1), "prompts/s", rounds)
    different = [place for place in texts[many] if texts[many][place].ids != texts[single][place].ids]
    margins = [margin_at_first_difference(single, prompts[place], texts[many][place]) for place in different]
    print(
        f"  {len(prompts) - len(different)} of {len(prompts)} texts equal; margins at the first difference of the",
        end="",
    )
    print(f" others: {', '.join(f'{margin:.1e}' for margin in sorted(margins)) or 'none'}")
    assert all(margin < CLEAR for margin in margins), "a text differs where the choice was clear"


def margin_at_first_difference(generator: Generator, prompt: str, other: Completion) -> float:
    (found,) = generator.generate(prompt, sampling=GREEDY, stop=STOP, logprobs=2)
    place = next(place for place, (a, b) in enumerate(zip(found.ids, other.ids, strict=True)) if a != b)
    (_, first), (_, second) = found.top[place]
    return first - second


if __name__ == "__main__":
    main()
