"""Full fine-tuning of 124M (random weights, window 1024, batch 1): ours, a loop as nanoGPT's, transformers' Trainer.

Each contender is a process of its own that waits for its turn; all have AdamW (fused), decay 0.1 on matrices and the
same windows; all but the lean one have glibc keep freed memory. Trainer runs where the package accelerate is installed.

    python benchmarks/bench_train.py bf16|fp32 [ROUNDS [CONTENDER...]]     speed and peak memory
    python benchmarks/bench_train.py losses    fifty steps of ours and transformers' from the same weights, window 256
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from turns import heading, probe_gigabytes_per_second

from gpt2kit.config.training import PRESETS

SHARED = Path(__file__).parents[2] / "shared"
KEEP_FREED = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "67108864",
}
VOCAB, RATE, DECAY, BETAS = 50257, 1e-4, 0.1, (0.9, 0.95)
ROUNDS, STEPS_A_TURN, WARM_STEPS = 15, 2, 3
OURS = {"ours": {}, "ours, lean": PRESETS["lean"]}
PEERS = ("nanogpt loop", "nanogpt loop, exact GELU", "trainer")


def main() -> None:
    if sys.argv[1:2] == ["--contender"]:
        contend(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:] == ["losses"]:
        compare_losses()
    else:
        precision, rounds, *names = [*sys.argv[1:], *("bf16", str(ROUNDS))[len(sys.argv) - 1 :]]
        compare_speed(precision, int(rounds), names)


def compare_speed(precision: str, rounds: int, names: list[str]) -> None:
    heading(f"fine-tuning 124M, window 1024, batch 1, two threads, {precision}")
    names = names or [*OURS, *(name for name in PEERS if name != "trainer" or find_spec("accelerate"))]
    contenders = {name: Contender(name, precision) for name in names}
    memory = np.ones(500_000_000 // 8, np.int64)
    rates: dict[str, list[float]] = {name: [] for name in names}
    probes = []
    for number in range(rounds):
        probes.append(probe_gigabytes_per_second(memory))
        for name in names if number % 2 else reversed(names):
            rates[name].append(contenders[name].tokens_per_second())
    for name in names:
        peak = contenders[name].peak_gigabytes()
        print(f"  {name:18} {statistics.median(rates[name]):6.0f} tokens/s   peak {peak:.2f} GB")
    for ours in set(names) & set(OURS):
        for peer in set(names) & set(PEERS):
            ratios = sorted(a / b for a, b in zip(rates[ours], rates[peer], strict=True))
            print(f"  {ours} by {peer}: median {statistics.median(ratios):.3f}", end="")
            print(f", lower quartile {ratios[rounds // 4]:.3f}, of {rounds} rounds")
    print(f"  probe {min(probes):.1f} to {max(probes):.1f} GB/s, one thread")
    for contender in contenders.values():
        contender.end()


def compare_losses() -> None:
    heading("fifty steps from the same weights on the same windows, 124M, window 256, fp32, learning rate 1e-4")
    losses = {name: Contender(name, "fp32", 256).losses(50) for name in ("ours", "transformers loop")}
    differences = [abs(a - b) for a, b in zip(*losses.values(), strict=True)]
    for name, values in losses.items():
        print(f"  {name}: first {values[0]:.6f}, last {values[-1]:.6f}")
    print(f"  largest difference {max(differences):.2e}")


class Contender:
    """A process that learns when it is told to."""

    def __init__(self, name: str, precision: str, window: int = 1024) -> None:
        command = [sys.executable, __file__, "--contender", name, precision, str(window)]
        environment = {**os.environ, **({} if "lean" in name else KEEP_FREED), "HF_HUB_OFFLINE": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True, encoding="utf-8")
        self._window = window
        self.losses(WARM_STEPS if window == 1024 else 0)

    def losses(self, steps: int) -> list[float]:
        assert self.process.stdin
        assert self.process.stdout
        found = []
        for _ in range(steps):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            found.append(float(self.process.stdout.readline().removeprefix("LOSS ")))
        return found

    def tokens_per_second(self) -> float:
        started = time.perf_counter()
        self.losses(STEPS_A_TURN)
        return STEPS_A_TURN * self._window / (time.perf_counter() - started)

    def peak_gigabytes(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


# --- inside a contender ---


def contend(name: str, precision: str, window: int) -> None:
    import torch

    torch.set_num_threads(2)
    speak = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no loss

    def turn(loss: float | None) -> None:
        """Tell the loss of a step and wait for the next turn."""
        if loss is not None:
            print(f"LOSS {loss}", file=speak, flush=True)
        if not sys.stdin.readline():
            sys.exit()

    kinds = {"nanogpt loop": nanogpt_loop, "trainer": trainer, "transformers loop": transformers_loop}
    kinds["nanogpt loop, exact GELU"] = partial(nanogpt_loop, gelu="none")
    kinds.get(name, lambda *rest: ours(*rest, OURS[name]))(precision, window, turn)


def windows(window: int) -> Iterator[np.ndarray]:
    """The same windows for everyone: (1, window + 1) ids of real text."""
    ids = real_ids()
    starts = np.random.default_rng(0)
    while True:
        start = starts.integers(0, ids.size - window - 1)
        yield ids[None, start : start + window + 1]


def real_ids() -> np.ndarray:
    from gpt2kit.tokenizer.open import open_tokenizer

    files = {name: (SHARED / "data" / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    text = (SHARED / "data" / "wikitext-2.test.txt").read_text("utf-8")
    return np.array(open_tokenizer(files, "data").encode(text), np.int64)


def checkpoint() -> Any:
    from gpt2kit.config.model import SIZES
    from gpt2kit.model.initial import initial_checkpoint

    return initial_checkpoint(SIZES["124M"].config(VOCAB), {}, 0)


def ours(precision: str, window: int, turn: Callable[[float | None], None], settings: dict[str, Any]) -> None:
    from gpt2kit.config.training import Recipe, TrainingConfig
    from gpt2kit.data.batches import Corpus
    from gpt2kit.model.weights import to_network
    from gpt2kit.runs import Run
    from gpt2kit.train import loop

    fixed = {"steps": 10**9, "batch_size": 1, "accumulate": 1, "window": window, "learning_rate": RATE}
    fixed |= {"schedule": "constant", "warmup_steps": 0, "weight_decay": DECAY, "beta2": BETAS[1]}
    fixed |= {"precision": precision, "validation_share": 0.0, "validate_every": 10**9, "save_every": 10**9}
    fixed |= {"sample_every": 0, "print_every": 1}
    same = windows(window)
    loop.batch_at = lambda *_: (lambda ids: loop.Batch(ids[:, :-1], ids[:, 1:]))(next(same))  # the peers' windows
    start = checkpoint()
    network = to_network(start.config, start.tensors)
    nothing = Corpus(None, np.empty((0, 2), np.int64), window)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as place:
        recipe = Recipe.of(TrainingConfig(**{**fixed, **settings}))
        trainer = loop.Trainer(network, recipe, nothing, None, Run(Path(place)), lambda progress: None)
        turn(None)

        def stop_asked() -> bool:
            turn(trainer.values["loss"])
            return False

        trainer.train(stop_asked)


def nanogpt_loop(precision: str, window: int, turn: Callable[[float | None], None], gelu: str = "tanh") -> None:
    """The inner loop of nanoGPT's train.py, with its gradient clipping; GPT-2's shape, biases and GELU."""
    import torch
    from nanogpt import GPT

    network = GPT(VOCAB, window, width=768, layers=12, heads=12, bias=True, gelu=gelu)
    optimizer = torch.optim.AdamW(groups(network), lr=RATE, betas=BETAS, fused=True)
    turn(None)
    for ids in map(torch.from_numpy, windows(window)):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = network.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        turn(loss.item())


def transformers_model() -> Any:
    """GPT2LMHeadModel with the weights that ours starts from."""
    from transformers import AutoModelForCausalLM

    from gpt2kit.formats import huggingface

    with tempfile.TemporaryDirectory() as place:
        huggingface.write(checkpoint(), Path(place), lambda progress: None)
        return AutoModelForCausalLM.from_pretrained(place, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)


def transformers_loop(precision: str, window: int, turn: Callable[[float | None], None]) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    network = transformers_model().train()
    optimizer = torch.optim.AdamW(groups(network), lr=RATE, betas=BETAS)
    turn(None)
    for ids in map(torch.from_numpy, windows(window)):
        loss = cross_entropy(network(input_ids=ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        turn(loss.item())


def trainer(precision: str, window: int, turn: Callable[[float | None], None]) -> None:
    """transformers' Trainer as its documentation has it for a CPU, with fused AdamW."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Turns(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            turn(0.0 if state.global_step else None)

    class Windows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.source = windows(window - 1)  # its loss drops the last position, so a row is `window` ids

        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, place: int) -> dict[str, Any]:
            ids = torch.from_numpy(next(self.source)[0])
            return {"input_ids": ids, "labels": ids}

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=1,
        max_steps=10**6,
        learning_rate=RATE,
        weight_decay=DECAY,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    Trainer(transformers_model(), arguments, train_dataset=Windows(), callbacks=[Turns()]).train()


def groups(network: Any) -> list[dict[str, Any]]:
    weights = list(network.parameters())
    return [
        {"params": [weight for weight in weights if weight.ndim == 2], "weight_decay": DECAY},
        {"params": [weight for weight in weights if weight.ndim != 2], "weight_decay": 0.0},
    ]


if __name__ == "__main__":
    main()
