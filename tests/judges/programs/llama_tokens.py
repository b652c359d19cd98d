"""llama.cpp's ids of texts: FILE.gguf on the command line; a JSON list of texts in, one of lists of ids out."""

import json
import sys

import llama_cpp

model = llama_cpp.Llama(sys.argv[1], vocab_only=True, verbose=False)
texts = json.load(sys.stdin)
print(json.dumps([model.tokenize(text.encode(), add_bos=False, special=False) for text in texts]))
