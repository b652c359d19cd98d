"""gpt-2-simple, used as its README says, on a model directory: DIRECTORY TEXTS.json; three greedy texts of 8 tokens."""

import json
import sys
from pathlib import Path

import gpt_2_simple
import tensorflow as tf

directory = Path(sys.argv[1])
session = gpt_2_simple.start_tf_sess()
gpt_2_simple.load_gpt2(session, model_name=directory.name, model_dir=directory.parent)
texts = gpt_2_simple.generate(
    session,
    model_name=directory.name,
    model_dir=directory.parent,
    return_as_list=True,
    prefix="The ",
    length=8,
    top_k=1,
    nsamples=3,
)
assert tf.__version__.startswith("2.15")
Path(sys.argv[2]).write_text(json.dumps(texts), "utf-8")
