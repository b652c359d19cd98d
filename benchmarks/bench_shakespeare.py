"""tinyshakespeare from scratch, two cores: bits per byte of the last tenth, by the preset and by nanoGPT's CPU recipe.

The vocabulary is learnt on the first 90 % of the bytes, and so is the model; scored is every token of the rest, context
carried along. The clock starts before the first optimizer step and stops when the score is there.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from turns import heading

from gpt2kit import evaluate, finetune
from gpt2kit.config.training import PRESETS, TrainingConfig
from gpt2kit.jobs.init import init
from gpt2kit.jobs.learn_vocabulary import learn

TEXT = Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare" / "input.txt"
SEEDS = (0, 1, 2)
VOCAB_SIZE = 512
SECONDS = 180


def main() -> None:
    heading("tinyshakespeare from scratch, bits per byte of the last tenth")
    content = TEXT.read_bytes()
    border = len(content) * 9 // 10
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        Path("learnt.txt").write_bytes(content[:border])
        Path("held-out.txt").write_bytes(content[border:])
        scores = [ours(seed) for seed in SEEDS]
        print(f"  ours: median {statistics.median(scores):.3f}")
        nanogpt(content[:border].decode(), content[border:].decode())


def ours(seed: int) -> float:
    home = Path(f"model{seed}")
    learn([Path("learnt.txt")], VOCAB_SIZE, home)
    init("small", home, home, seed=seed)
    started = []
    training = TrainingConfig(**PRESETS["from-scratch"], validation_share=0.0, sample_every=0, seed=seed)
    run = finetune(
        ["learnt.txt"],
        home,
        run_name=f"seed{seed}",
        training=training,
        device="cpu",
        announce=lambda plan: started.append(time.perf_counter()),
    )
    score = evaluate(run.directory, Path("held-out.txt")).bits_per_byte
    seconds = time.perf_counter() - started[0]
    print(f"  ours, seed {seed}: {score:.3f} bits a byte after {seconds:.0f} s, {run.step} steps", flush=True)
    assert seconds < SECONDS, "too slow for the claim"
    return score


def nanogpt(learnt: str, held_out: str) -> None:
    """nanoGPT's README, "I only have a macbook": its loss is a sample's there; here it is scored by our rule."""
    import torch
    from nanogpt import GPT

    torch.manual_seed(1337)
    characters = sorted(set(learnt + held_out))
    ids, rest = (np.array([characters.index(one) for one in text]) for text in (learnt, held_out))
    network = GPT(len(characters), window=64, width=128, layers=4, heads=4, bias=False)
    groups = [
        {"params": [weight for weight in network.parameters() if weight.ndim == 2], "weight_decay": 0.1},
        {"params": [weight for weight in network.parameters() if weight.ndim != 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    draws, started = np.random.default_rng(1337), time.perf_counter()
    for step in range(2000):
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - 100) / 1900))
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = (
            1e-3 * step / 100 if step < 100 else 1e-4 + cosine * 9e-4
        )
        starts = draws.integers(0, ids.size - 64, 12)
        batch = torch.from_numpy(ids[starts[:, None] + np.arange(65)])
        loss = network.loss(batch[:, :-1], batch[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    bits = carried_bits(network, np.concatenate([ids[-1:], rest])) / len(held_out.encode())
    print(f"  nanoGPT's CPU recipe: {bits:.3f} bits a byte after {time.perf_counter() - started:.0f} s")


def carried_bits(network: object, ids: np.ndarray) -> float:
    """-log2 of the probability of all ids but the first; a full window keeps its newest half as context."""
    import torch

    half, total = 32, 0.0
    with torch.no_grad():
        for first in range(0, ids.size - 1, half):
            start = max(0, first - half)
            seen = torch.from_numpy(ids[start : first + half + 1])[None]
            logprobs = torch.log_softmax(network(seen[:, :-1]), -1)[0]
            wanted = seen[0, 1:, None]
            total -= logprobs.gather(1, wanted)[first - start :].sum().item()
    return total / math.log(2)


if __name__ == "__main__":
    main()
