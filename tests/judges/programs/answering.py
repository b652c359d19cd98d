"""What every program here does: DIRECTORY QUESTION.npz ANSWER.npz on the command line, a question in, an answer out."""

import sys

import numpy as np


def asked_directory():
    return sys.argv[1]


def answer(logits_of, **more):
    """Answer with `logits_of`, which turns ids (rows, length) into logits (rows, length, vocabulary)."""
    question = np.load(sys.argv[2])
    logits = logits_of(question["ids"])
    greedy = question["prompt"].tolist()
    while len(greedy) < question["length"]:
        greedy.append(int(logits_of(np.array([greedy]))[0, -1].argmax()))
    np.savez(sys.argv[3], logits=logits, greedy=greedy, **more)
