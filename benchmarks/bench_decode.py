"""Torch engine, random 124M in fp32, beside transformers' generate: 64 new tokens after 16, batch 1 and 8.

Ours is the whole path: scheduler, engine, choice, log-probabilities. Greedy texts are compared before any timing.
Usage: bench_decode.py [rounds]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from turns import heading, in_turn

from gpt2kit.config.model import SIZES
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.formats import huggingface
from gpt2kit.generate.scheduler import Request, Scheduler, Token
from gpt2kit.generate.torch_engine import TorchEngine
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.progress import silent

NEW, PROMPT, END = 64, 16, 50256
SAMPLINGS = {"greedy": SamplingConfig(temperature=0), "top_k 40": SamplingConfig(top_k=40, seed=1)}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as place:
        huggingface.write(initial_checkpoint(SIZES["124M"].config(END + 1), {}, 0), Path(place), silent)
        engine = TorchEngine(huggingface.read(Path(place)), slots=8)
        peer = transformers.GPT2LMHeadModel.from_pretrained(place).eval()
    heading(
        f"decode, random 124M fp32, torch {torch.__version__}, beside transformers {transformers.__version__} generate"
    )
    draws = np.random.default_rng(0).integers(0, END, (8, PROMPT))
    for batch in (1, 8):
        prompts = draws[:batch]
        for name, sampling in SAMPLINGS.items():
            if name == "greedy":
                same = [
                    mine == theirs
                    for mine, theirs in zip(
                        write(engine, prompts, sampling), write_peer(peer, prompts, sampling), strict=True
                    )
                ]
                print(f"batch {batch}: {sum(same)} of {batch} greedy texts equal")
            print(f"batch {batch}, {name}")
            in_turn(
                lambda _, p=prompts, s=sampling: rate(lambda: write(engine, p, s), len(p)),
                lambda _, p=prompts, s=sampling: rate(lambda: write_peer(peer, p, s), len(p)),
                "tokens/s",
                rounds,
            )


def rate(job, batch: int) -> float:
    started = time.perf_counter()
    job()
    return batch * NEW / (time.perf_counter() - started)


def write(engine: TorchEngine, prompts: np.ndarray, sampling: SamplingConfig) -> list[list[int]]:
    scheduler = Scheduler(engine)
    stop = StopConfig(max_new_tokens=NEW, ignore_end=True)
    tickets = [
        scheduler.submit(Request(tuple(ids), sampling, stop, END, sample=n)) for n, ids in enumerate(prompts.tolist())
    ]
    texts = {ticket: [] for ticket in tickets}
    while scheduler.busy:
        for event in scheduler.step():
            if isinstance(event, Token):
                texts[event.ticket].append(event.id)
    return [texts[ticket] for ticket in tickets]


def write_peer(peer: transformers.GPT2LMHeadModel, prompts: np.ndarray, sampling: SamplingConfig) -> list[list[int]]:
    ids = torch.from_numpy(prompts)
    choice = {"do_sample": True, "top_k": sampling.top_k} if sampling.temperature else {"do_sample": False}
    with torch.inference_mode():
        whole = peer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            eos_token_id=None,
            pad_token_id=END,
            **choice,
        )
    return whole[:, PROMPT:].tolist()


if __name__ == "__main__":
    main()
