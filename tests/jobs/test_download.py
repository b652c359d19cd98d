"""The whole way: a name, a plain server of static files, a model that can be read."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from shutil import copytree

import numpy as np
import pytest

from gpt2kit import download, open_checkpoint
from gpt2kit.errors import DownloadError
from gpt2kit.hub.catalogue import KnownFile, KnownModel
from gpt2kit.hub.manifest import MANIFEST
from gpt2kit.jobs.init import init

DATA = "model.ckpt.data-00000-of-00001"
FILES = ("checkpoint", "encoder.json", "hparams.json", DATA, "model.ckpt.index", "vocab.bpe")
CATALOGUE = (KnownModel("tiny", "maker/tiny", (), 103_344, tuple(map(KnownFile, FILES))),)


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, golden):
    """Static files, as any web server would serve them: a directory, and its address."""
    root = tmp_path / "mirror"
    copytree(golden / "openai-tiny", root / "models" / "tiny")
    copytree(golden / "hf-safetensors", root / "maker" / "tiny" / "resolve" / "main")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=root))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("source", "golden_folder"), [("openai", "openai-tiny"), ("huggingface", "hf-safetensors")])
def test_a_downloaded_model_is_the_model(mirror, tmp_path, golden, source, golden_folder):
    url = mirror[1]
    folder = download("tiny", source=source, endpoint=url, models=tmp_path / "models", catalogue=CATALOGUE)
    assert folder == tmp_path / "models" / "tiny"
    got, expected = open_checkpoint(folder), open_checkpoint(golden / golden_folder)
    assert got.config == expected.config
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(got.tensors[name].read(), tensor.read())


def test_a_second_time_nothing_is_asked(mirror, tmp_path):
    url = mirror[1]
    download("tiny", endpoint=url, models=tmp_path, catalogue=CATALOGUE)
    nobody = "http://127.0.0.1:1"
    assert download("tiny", endpoint=nobody, models=tmp_path, catalogue=CATALOGUE) == tmp_path / "tiny"


def test_a_flipped_bit_in_the_weights_is_found_and_its_tensor_named(mirror, tmp_path):
    root, url = mirror
    path = root / "models" / "tiny" / DATA
    content = bytearray(path.read_bytes())
    content[-4] ^= 1  # model/wte is the last by name, model/wpe before it
    path.write_bytes(content)
    with pytest.raises(DownloadError, match=r"wte.*remove it and repeat the command") as error:
        download("tiny", endpoint=url, models=tmp_path, catalogue=CATALOGUE)
    assert DATA in str(error.value)
    assert not (tmp_path / "tiny" / MANIFEST).exists()
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir() if path.name[0] != ".") == sorted(FILES)


def test_verifying_is_told(mirror, tmp_path):
    heard = []
    download("tiny", endpoint=mirror[1], models=tmp_path, catalogue=CATALOGUE, report=heard.append)
    assert (heard[-1].task, heard[-1].done, heard[-1].total) == ("verify tiny", 413_376, 413_376)
    assert [told.task for told in heard if told.done == told.total][:6] == [f"tiny/{name}" for name in FILES]


def test_chinese_words_come_along_and_are_checked(mirror, tmp_path, shared):
    root, url = mirror
    vocabulary = (shared / "fixtures" / "gpt2ml" / "vocab.txt").read_bytes()
    repository = root / "some" / "chinese" / "resolve" / "main"
    init("tiny", shared / "fixtures" / "gpt2ml", repository)
    folder = download("hf:some/chinese", endpoint=url, models=tmp_path / "models")
    assert open_checkpoint(folder).tokenizer_files == {"vocab.txt": vocabulary}
    (repository / "vocab.txt").write_text("other\nwords\n", "utf-8")
    with pytest.warns(UserWarning, match=r"vocabulary cannot be used: .*vocab\.txt: 2 tokens, none of them \[UNK\]"):
        download("hf:some/chinese", endpoint=url, models=tmp_path / "others")
