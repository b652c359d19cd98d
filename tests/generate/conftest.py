import dataclasses
from functools import partial

import pytest

from gpt2kit.checkpoint import LazyTensor
from gpt2kit.config.model import ModelConfig
from gpt2kit.formats.huggingface import write
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.progress import silent
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.learn import learn_vocabulary
from gpt2kit.tokenizer.vocabulary import read_vocabulary

TEXT = "the cat sat on the mat. 床前明月光,疑是地上霜。 🙂🙃 the dog ate the fog; " * 4
LOUDER = 8  # random weights of the usual size prefer no token; these do


def louder(tensor):
    factor = 1 if "ln_" in tensor.name else LOUDER
    return LazyTensor(tensor.name, tensor.dtype, tensor.shape, partial(lambda load: load() * factor, tensor.load))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """A second thread gains nothing on models this small, and costs much on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vocabulary_files():
    return learn_vocabulary([TEXT], 320)


@pytest.fixture(scope="session")
def tokenizer(vocabulary_files):
    return ByteLevelBPE(read_vocabulary(vocabulary_files, "tiny"))


@pytest.fixture(scope="session")
def make_checkpoint(vocabulary_files):
    """A small model of random weights; `changes` are fields of its ModelConfig."""

    def make(vocab_size, seed=0, **changes):
        shape = {"window": 32, "width": 32, "layers": 2, "heads": 4, "inner_width": 64} | changes
        checkpoint = initial_checkpoint(ModelConfig(vocab_size=vocab_size, **shape), vocabulary_files, seed)
        tensors = {name: louder(tensor) for name, tensor in checkpoint.tensors.items()}
        return dataclasses.replace(checkpoint, tensors=tensors)

    return make


@pytest.fixture(scope="session")
def small_checkpoint(make_checkpoint, tokenizer):
    return make_checkpoint(tokenizer.vocab_size)


@pytest.fixture(scope="session")
def in_transformers(tmp_path_factory, transformers):
    """A checkpoint as transformers runs it."""

    def load(checkpoint):
        directory = tmp_path_factory.mktemp("model")
        write(checkpoint, directory, silent)
        return transformers.GPT2LMHeadModel.from_pretrained(directory).eval()

    return load
