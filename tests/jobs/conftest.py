import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """A second thread gains nothing on models this small, and costs much on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory of our own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def model(golden):
    """The directory of a model with 320 tokens and a window of 56."""
    return golden / "hf-safetensors"
