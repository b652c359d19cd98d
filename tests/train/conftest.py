import pytest

from gpt2kit.model.weights import to_network


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """A second thread gains nothing on models this small, and costs much on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def network(tiny_checkpoint):
    """A network of its own for every test."""
    return to_network(tiny_checkpoint.config, tiny_checkpoint.tensors)
