import shutil

import pytest

from gpt2kit import simple as gpt2

TEXT = "The cat sat on the mat. The dog ate the fog, and then the cat ate the dog; so it goes.\n" * 20
OF_OPENAI = (
    *("checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index"),
    *("model.ckpt.meta", "vocab.bpe"),
)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """A second thread gains nothing on models this small, and costs much on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of our own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def text(here):
    """The name of a text of about 800 tokens."""
    (here / "text.txt").write_text(TEXT, encoding="utf-8")
    return "text.txt"


@pytest.fixture
def have(here, golden):
    """have("124M"): the seven files of a model of OpenAI's, tiny (320 tokens, window 64), in models/124M."""

    def one(name):
        directory = here / "models" / name
        directory.mkdir(parents=True)
        for file in OF_OPENAI[:5] + OF_OPENAI[6:]:
            shutil.copy(golden / "openai-tiny" / file, directory)
        (directory / "model.ckpt.meta").write_bytes(b"\n\x04meta")  # nobody reads it
        return directory

    return one


@pytest.fixture
def have_wide(here, shared):
    """have_wide(name): put a model into models/, whose window is 1024, as samples of the old default length need."""

    def put(name):
        run, directory = shared / "fixtures" / "gpt2simple" / "checkpoint" / "run1", here / "models" / name
        directory.mkdir(parents=True)
        for file in ("hparams.json", "encoder.json", "vocab.bpe"):
            shutil.copy(run / file, directory)
        for ending in ("index", "data-00000-of-00001"):
            shutil.copy(run / f"model-2.{ending}", directory / f"model.ckpt.{ending}")

    return put


@pytest.fixture
def sess(have):
    """A session with models/124M, whose window is 64."""
    have("124M")
    session = gpt2.start_tf_sess()
    gpt2.load_gpt2(session, model_name="124M")
    return session
