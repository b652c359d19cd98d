"""Full fine-tuning of 124M and 355M on one GPU, bf16, compiled: ours beside transformers' Trainer, compiled too.

Tokens/s over the last of three turns, and the share of the GPU's matrix peak, 6 operations a parameter and token and
those of attention counted. Trainer runs where the package accelerate is installed.

    python benchmarks/bench_train_gpu.py [PEAK_TFLOPS]      989 for an H100 or H200, 312 for an A100, 65 for a T4 (fp16)
    python benchmarks/bench_train_gpu.py --try              the same with a tiny model on the CPU, for its logic only
"""

from __future__ import annotations

import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import heading

from gpt2kit.config.model import SIZES, ModelConfig
from gpt2kit.config.training import Recipe, TrainingConfig
from gpt2kit.data.batches import Corpus
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.model.weights import to_network
from gpt2kit.runs import Run
from gpt2kit.train.loop import Trainer

VOCAB, RATE = 50257, 1e-4
PEAK_TFLOPS = 989.0


class Noise:
    """Random ids in the place of a text: speed does not depend on them."""

    def __init__(self, total: int, vocab_size: int) -> None:
        self.total, self.ends = total, np.array([total])
        self._ids = np.random.default_rng(0).integers(0, vocab_size, total)

    def take(self, positions: np.ndarray) -> np.ndarray:
        return self._ids[positions]


def main() -> None:
    trying = sys.argv[1:] == ["--try"]
    if not trying and not torch.cuda.is_available():
        print("torch sees no GPU here; `--try` runs the logic on the CPU")
        return
    peak = PEAK_TFLOPS if trying or not sys.argv[1:] else float(sys.argv[1])
    name = "the CPU, for the logic only" if trying else torch.cuda.get_device_name()
    heading(f"fine-tuning on {name}, bf16; peak taken as {peak:.0f} TFLOP/s")
    for size, batch in ({"tiny": 2} if trying else {"124M": 16, "355M": 8}).items():
        config = SIZES[size].config(VOCAB)
        steps = 2 if trying else 30
        contenders = {"ours": ours, **({"trainer": trainer} if find_spec("accelerate") else {})}
        for contender, learn in contenders.items():
            seconds = learn(config, batch, steps, not trying)
            rate = steps * batch * config.window / seconds
            share = rate * operations(config) / (peak * 1e12)
            print(f"  {size} {contender}: {rate:,.0f} tokens/s, {100 * share:.1f} % of the peak", flush=True)


def operations(config: ModelConfig) -> float:
    """Floating-point operations a token, forward and backward. Source: Chowdhery et al. 2022, appendix B."""
    matrices = config.layers * (4 * config.width**2 + 2 * config.width * config.inner_width)
    return 6 * (matrices + config.vocab_size * config.width) + 6 * config.layers * config.width * config.window


def ours(config: ModelConfig, batch: int, steps: int, on_gpu: bool) -> float:
    """Seconds of `steps` steps, after as many that do not count."""
    start = initial_checkpoint(config, {}, 0)
    network = to_network(config, start.tensors).to("cuda" if on_gpu else "cpu")
    settings = TrainingConfig(
        **{"steps": 2 * steps, "batch_size": batch, "accumulate": 1, "window": config.window, "learning_rate": RATE},
        **{"warmup_steps": 0, "precision": "bf16", "compile": on_gpu, "loss_chunk": 4096},
        **{"validation_share": 0.0, "validate_every": 10**9, "save_every": 10**9, "sample_every": 0},
    )
    ticks: list[float] = []

    def tick() -> bool:
        ticks.append(time.perf_counter())  # the loop has read the step's loss: the GPU is done
        return False

    tokens = Noise(1_000_000, config.vocab_size)
    corpus = Corpus(tokens, np.array([[0, tokens.total]]), config.window)
    with tempfile.TemporaryDirectory() as place:
        Trainer(network, Recipe.of(settings), corpus, None, Run(Path(place)), lambda progress: None).train(tick)
    return ticks[-2] - ticks[steps - 2]  # the last step also saves


def trainer(config: ModelConfig, batch: int, steps: int, on_gpu: bool) -> float:
    """The same by transformers' Trainer."""
    import transformers

    ticks: list[float] = []

    class Ticks(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if on_gpu:
                torch.cuda.synchronize()
            ticks.append(time.perf_counter())

    ids = torch.from_numpy(Noise(1_000_000, config.vocab_size).take(np.arange(1_000_000)))
    rows = [{"input_ids": row, "labels": row} for row in ids.split(config.window) if row.numel() == config.window]
    shape = {"vocab_size": config.vocab_size, "n_positions": config.window, "n_embd": config.width}
    shape |= {"n_layer": config.layers, "n_head": config.heads}
    dropouts = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **dropouts))
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        max_steps=2 * steps,
        learning_rate=RATE,
        optim="adamw_torch_fused",
        bf16=True,
        torch_compile=on_gpu,
        use_cpu=not on_gpu,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    transformers.Trainer(network, arguments, train_dataset=rows, callbacks=[Ticks()]).train()
    return ticks[-1] - ticks[steps - 1]


if __name__ == "__main__":
    main()
