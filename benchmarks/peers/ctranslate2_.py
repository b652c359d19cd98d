"""CTranslate2 as a contender. Usage: ctranslate2_.py MODEL VOCAB_JSON int8|float32."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
from contender import END, answer_lines

THREADS = 2


class CTranslate2:
    def __init__(self, model: str, vocabulary: str, kind: str) -> None:
        self.model = ctranslate2.Generator(
            model, device="cpu", compute_type=kind, intra_threads=THREADS, inter_threads=1
        )
        words = json.loads(Path(vocabulary).read_text("utf-8"))
        self.words = {id: word for word, id in words.items()}
        self.bytes = (Path(model) / "model.bin").stat().st_size

    def about(self) -> Mapping[str, Any]:
        name = f"ctranslate2 {ctranslate2.__version__}, {self.model.compute_type}"
        return {"name": name, "bytes": self.bytes}

    def decode(self, prompt: Sequence[int], new: int) -> Sequence[int]:
        (found,) = self.model.generate_batch(
            [[self.words[id] for id in prompt]],
            max_length=new,
            min_length=new,  # ignores the end
            sampling_topk=1,
            beam_size=1,
            include_prompt_in_result=False,
        )
        return [id for id in found.sequences_ids[0] if id != END]


if __name__ == "__main__":
    answer_lines(CTranslate2(*sys.argv[1:]))
