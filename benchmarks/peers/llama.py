"""llama.cpp as a contender, by llama-cpp-python's low level. Usage: llama.py GGUF [option=value ...]; see OPTIONS."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import llama_cpp
import numpy as np
from contender import answer_lines

THREADS = 2
OPTIONS = {
    "flash": 1,  # flash attention: 0 off, 1 on
    "repack": 1,  # weights laid out anew for the kernels (AMX among them): 0 never, 1 where it can
    "load": 0,  # 0 read into memory, 1 mapped
    "unified": 0,  # one key-value cache for all sequences: 0 no, 1 yes
}


class Llama:
    def __init__(self, path: str, options: Mapping[str, int]) -> None:
        self.options = options
        settings = llama_cpp.llama_model_default_params()
        settings.use_extra_bufts, settings.load_mode = bool(options["repack"]), options["load"]
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), settings)
        assert self.model, f"llama.cpp does not open {path}"
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.contexts: dict[int, Any] = {}

    def context(self, rows: int, each: int) -> Any:
        """An empty memory for so many sequences, made once."""
        if rows not in self.contexts:
            settings = llama_cpp.llama_context_default_params()
            settings.n_ctx, settings.n_seq_max = rows * each, rows
            settings.n_batch = settings.n_ubatch = 512
            settings.n_threads = settings.n_threads_batch = THREADS
            settings.flash_attn_type = self.options["flash"]
            settings.kv_unified = bool(self.options["unified"])
            settings.no_perf = True
            self.contexts[rows] = llama_cpp.llama_init_from_model(self.model, settings)
            assert self.contexts[rows], "llama.cpp makes no context"
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.contexts[rows]), True)
        return self.contexts[rows]

    def about(self) -> Mapping[str, Any]:
        features = llama_cpp.llama_print_system_info().decode().strip()
        options = " ".join(f"{name}={value}" for name, value in self.options.items())
        positions = llama_cpp.llama_model_n_ctx_train(self.model) * llama_cpp.llama_model_n_embd(self.model) * 4
        return {
            "name": f"llama.cpp of llama-cpp-python {llama_cpp.__version__}, {options}",
            "features": features,
            "bytes": llama_cpp.llama_model_size(self.model) - positions,
        }

    def append(self, context: Any, ids: Sequence[int]) -> None:
        tokens = (ctypes.c_int32 * len(ids))(*ids)  # the batch only points to it
        assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(ids))) == 0

    def likeliest(self, context: Any) -> int:
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def decode(self, prompt: Sequence[int], new: int) -> Sequence[int]:
        context = self.context(1, 1024)
        self.append(context, prompt)
        ids = [self.likeliest(context)]
        while len(ids) < new:
            self.append(context, ids[-1:])
            ids.append(self.likeliest(context))
        return ids

    def prefill(self, prompt: Sequence[int]) -> None:
        context = self.context(1, 1024)
        self.append(context, prompt)
        self.likeliest(context)

    def begin_batch(self, prompts: Sequence[Sequence[int]], new: int) -> None:
        self.length, self.rows = len(prompts[0]), len(prompts)
        self.many = self.context(self.rows, -(-(self.length + new) // 256) * 256)
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)
        for place in range(self.length):
            self.append_to_all([prompt[place] for prompt in prompts], place)

    def append_to_all(self, ids: Sequence[int], place: int) -> None:
        batch = self.batch
        batch.n_tokens = len(ids)
        for row, id in enumerate(ids):
            batch.token[row], batch.pos[row], batch.logits[row] = id, place, 1
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, row
        assert llama_cpp.llama_decode(self.many, batch) == 0

    def continue_batch(self, new: int) -> Mapping[str, Any]:
        """Nothing is chosen: the ids are fixed."""
        for step in range(new):
            self.append_to_all([(row * 31 + step * 17) % 50000 for row in range(self.rows)], self.length + step)
            llama_cpp.llama_get_logits_ith(self.many, -1)
        return {}


@llama_cpp.llama_log_callback
def only_errors(level: int, text: bytes, _: Any) -> None:
    """Its loading is of no interest here."""
    if level == 4:
        print(text.decode(errors="replace"), end="", file=sys.stderr)


if __name__ == "__main__":
    path, *chosen = sys.argv[1:]
    if "verbose" not in chosen:
        llama_cpp.llama_log_set(only_errors, ctypes.c_void_p())
    given = {name: int(value) for name, _, value in (pair.partition("=") for pair in chosen if "=" in pair)}
    assert given.keys() <= OPTIONS.keys(), f"no such option among {given.keys()}"
    llama_cpp.llama_backend_init()
    answer_lines(Llama(path, OPTIONS | given))
