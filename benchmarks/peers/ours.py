"""gpt2kit's native engine as a contender. Usage: ours.py MODEL fp32|bf16|int8|int4 [slots]."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contender import answer_lines

import gpt2kit
from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.generate.engine import Row
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.generate.sampling import RowState, choose
from gpt2kit.resolve import open_checkpoint

THREADS = 2
TOP_40 = SamplingConfig(top_k=40, seed=1)


class Ours:
    def __init__(self, model: Path, precision: str, slots: int) -> None:
        checkpoint = open_checkpoint(model)
        self.engine = NativeEngine(checkpoint, slots=slots, precision=precision, threads=THREADS)
        self.facts = {
            "name": f"gpt2kit {gpt2kit.__version__} {precision}, {self.engine.instruction_set}",
            "bytes": self.engine.weight_bytes,
        }

    def about(self) -> Mapping[str, Any]:
        return self.facts

    def decode(self, prompt: Sequence[int], new: int) -> Sequence[int]:
        self.engine.truncate(0, 0)
        ids = [int(self.engine.step([Row(0, prompt, "last")])[0].argmax())]
        while len(ids) < new:
            ids.append(int(self.engine.step([Row(0, ids[-1:], "last")])[0].argmax()))
        return ids

    def prefill(self, prompt: Sequence[int]) -> None:
        self.engine.truncate(0, 0)
        self.engine.step([Row(0, prompt, "last")])

    def begin_batch(self, prompts: Sequence[Sequence[int]], new: int) -> None:
        for slot, prompt in enumerate(prompts):
            self.engine.truncate(slot, 0)
            logits_RV = self.engine.step([Row(slot, prompt, "last")])
            first = choose(logits_RV, [RowState(TOP_40, prompt, len(prompt), slot)]).ids_R
            prompts[slot].append(int(first[0]))
        self.texts, self.prompt_length = prompts, len(prompts[0]) - 1

    def continue_batch(self, new: int) -> Mapping[str, Any]:
        choosing = 0.0
        started = time.perf_counter()
        for _ in range(new):
            logits_RV = self.engine.step([Row(slot, text[-1:], "last") for slot, text in enumerate(self.texts)])
            before = time.perf_counter()
            states = [RowState(TOP_40, text, self.prompt_length, slot) for slot, text in enumerate(self.texts)]
            for text, id in zip(self.texts, choose(logits_RV, states).ids_R.tolist(), strict=True):
                text.append(id)
            choosing += time.perf_counter() - before
        return {"choosing": choosing / (time.perf_counter() - started)}


if __name__ == "__main__":
    model, precision, *more = sys.argv[1:]
    answer_lines(Ours(Path(model), precision, *map(int, more or ["1"])))
