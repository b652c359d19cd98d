"""llama.cpp on a .gguf file; with a fourth word, q8_0 or q4_0, its quantiser instead, which writes ANSWER.gguf."""

import ctypes
import sys
from functools import cache

import llama_cpp
import numpy as np
from answering import answer, asked_directory

FILE_TYPES = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


@cache
def opened():
    question = np.load(sys.argv[2])
    length = max(question["ids"].shape[1], int(question["length"]))
    return llama_cpp.Llama(asked_directory(), n_ctx=length, n_batch=length, logits_all=True, verbose=False)


def logits_of(ids):
    model, rows = opened(), []
    for row in ids:
        model.reset()
        model.eval(row.tolist())
        rows.append(model.scores[: len(row)].copy())
    return np.array(rows)


if len(sys.argv) == 5:
    wanted = llama_cpp.llama_model_quantize_default_params()
    wanted.ftype = FILE_TYPES[sys.argv[4]]
    wanted.token_embedding_type = llama_cpp.GGML_TYPE_Q8_0
    source, target = (word.encode() for word in sys.argv[1:4:2])
    assert llama_cpp.llama_model_quantize(source, target, ctypes.byref(wanted)) == 0
else:
    answer(logits_of)
