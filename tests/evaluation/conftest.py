import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """A second thread gains nothing on models this small, and costs much on a busy machine."""
    import torch

    torch.set_num_threads(1)
