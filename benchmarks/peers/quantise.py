"""llama.cpp's own quantiser. Usage: quantise.py F32.gguf TO.gguf BF16|Q8_0|Q4_0."""

from __future__ import annotations

import sys

import llama_cpp

if __name__ == "__main__":
    source, target, kind = sys.argv[1:]
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    assert llama_cpp.llama_model_quantize(source.encode(), target.encode(), settings) == 0
