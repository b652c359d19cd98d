"""openai/gpt-2's src/model.py, as gpt-2-simple ships it, on a TensorFlow 1 checkpoint; and all its tensors."""

import json
from pathlib import Path

import tensorflow as tf
from answering import answer, asked_directory
from gpt_2_simple.src import model

directory = Path(asked_directory())
hparams = model.default_hparams()
hparams.override_from_dict(json.loads((directory / "hparams.json").read_text("utf-8")))
checkpoint = tf.train.latest_checkpoint(directory)
reader = tf.train.load_checkpoint(checkpoint)
stored = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}

with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    ids_BT = tf.compat.v1.placeholder(tf.int32, [None, None])
    logits_BTV = model.model(hparams=hparams, X=ids_BT)["logits"]
    tf.compat.v1.train.Saver().restore(session, checkpoint)
    answer(lambda ids: session.run(logits_BTV, {ids_BT: ids}), **stored)
