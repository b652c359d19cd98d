"""A TFGPT2LMHeadModel of random weights in the directory PLACE, drawn from SEED, kept in every way of TensorFlow 2's.

Beside each, expected.npz: what it computes. Graphs (saved_model.pb) are taken away again: nobody reads them.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from transformers import GPT2Config, TFGPT2LMHeadModel

VOCABULARY, WINDOW = 100, 24

place, seed = Path(sys.argv[1]), int(sys.argv[2])
tf.keras.utils.set_random_seed(seed)
draws = np.random.default_rng(seed)
sizes = {"vocab_size": VOCABULARY, "n_positions": WINDOW, "n_embd": 16, "n_layer": 2, "n_head": 2}
config = GPT2Config(**sizes, initializer_range=0.2, bos_token_id=99, eos_token_id=99)
model = TFGPT2LMHeadModel(config)
model(tf.constant([[1, 2, 3]]))
for variable in model.weights:  # or else all gains were 1, and all biases 0
    variable.assign_add(draws.normal(0, 0.05, variable.shape).astype(np.float32))


def logits_of(ids_BT):
    return model(tf.constant(ids_BT)).logits.numpy()


def tell(directory):
    """Write beside the weights what tells their shape, and what the model computes now."""
    config.save_pretrained(directory)
    told = {}
    for number, (rows, length) in enumerate([(1, 12), (2, 20), (1, WINDOW)]):
        told[f"tokens_{number}"] = ids_BT = draws.integers(0, VOCABULARY, (rows, length), dtype=np.int32)
        told[f"logits_{number}"] = logits_of(ids_BT)
    np.savez_compressed(directory / "expected.npz", **told)


tf.train.Checkpoint(model=model).save(place / "checkpoint" / "ckpt")
model.save_weights(place / "weights" / "weights")
model.save_pretrained(place / "pretrained", saved_model=True)
(place / "pretrained" / "tf_model.h5").unlink()
tf.saved_model.save(model, str(place / "plain"))
for name in ("checkpoint", "weights", "pretrained", "plain"):
    tell(place / name)

# Trained by Keras's optimizer, two steps kept, and by that of earlier versions.
ids_BT = draws.integers(0, VOCABULARY, (4, 16))
optimizer = tf.keras.optimizers.Adam(1e-3)
model.compile(optimizer)
kept = tf.train.Checkpoint(model=model, optimizer=optimizer)
manager = tf.train.CheckpointManager(kept, place / "trained", max_to_keep=2)
for step in (7, 12):
    model.fit({"input_ids": ids_BT, "labels": ids_BT}, verbose=0)
    manager.save(step)
tell(place / "trained")
model.save(place / "keras", save_format="tf")
tell(place / "keras")
earlier = tf.keras.optimizers.legacy.Adam(1e-3)
with tf.GradientTape() as tape:
    loss = model(input_ids=ids_BT, labels=ids_BT).loss
earlier.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True))
tf.train.Checkpoint(net=model, optimizer=earlier).save(place / "earlier" / "ckpt")
tell(place / "earlier")

for graph in ("saved_model.pb", "keras_metadata.pb", "fingerprint.pb"):
    for file in place.rglob(graph):
        file.unlink()
for assets in place.rglob("assets"):
    shutil.rmtree(assets)
