"""gpt-2-simple's encode_dataset, in the working directory: MODEL_NAME COMBINE OUT.npz TEXT."""

import sys

import gpt_2_simple

model_name, combine, out, text = sys.argv[1:]
gpt_2_simple.encode_dataset(text, model_name=model_name, out_path=out, combine=int(combine))
