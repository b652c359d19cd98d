import csv
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from shutil import move

import numpy as np
import pytest

from gpt2kit import simple as gpt2
from gpt2kit.errors import DownloadError
from gpt2kit.hub.catalogue import KnownFile, KnownModel
from gpt2kit.legacy.gpt_2_simple_files import FILES, fetch_gpt2
from gpt2kit.resolve import open_checkpoint
from gpt2kit.tokenizer.open import open_tokenizer

CATALOGUE = (KnownModel("124M", "openai-community/gpt2", ("117M",), 103_344, tuple(map(KnownFile, FILES))),)


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(here, have):
    """The address of a server that holds models/124M, which is not here."""
    (here / "mirror" / "models").mkdir(parents=True)
    move(have("124M"), here / "mirror" / "models")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=here / "mirror"))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


# --- models ---


def test_a_model_is_fetched_with_a_bar_a_file(here, mirror, capsys):
    fetch_gpt2(here / "models", "124M", endpoint=mirror, catalogue=CATALOGUE)
    shown = capsys.readouterr().err
    assert [name for name in FILES if f"Fetching {name}: 100%" in shown] == list(FILES)
    assert gpt2.is_gpt2_downloaded()


def test_the_old_name_names_the_directory(here, mirror):
    fetch_gpt2(here / "models", "117M", endpoint=mirror, catalogue=CATALOGUE)
    assert sorted(path.name for path in (here / "models" / "117M").glob("[!.]*")) == sorted(FILES)


def test_a_second_time_nothing_is_asked(here, mirror):
    fetch_gpt2(here / "models", "124M", endpoint=mirror, catalogue=CATALOGUE)
    fetch_gpt2(here / "models", "124M", endpoint="http://127.0.0.1:1", catalogue=CATALOGUE)


@pytest.mark.parametrize("lost", FILES)
def test_a_model_is_there_when_all_its_files_are(have, lost):
    assert not gpt2.is_gpt2_downloaded()
    directory = have("124M")
    assert gpt2.is_gpt2_downloaded()
    (directory / lost).unlink()
    assert not gpt2.is_gpt2_downloaded()


def test_a_model_is_there_under_the_other_of_its_names(have):
    have("355M")
    assert gpt2.is_gpt2_downloaded(model_name="345M")


def test_one_file_can_be_fetched(here, mirror, capsys):
    gpt2.download_file_with_progress(mirror, "models/124M", "124M", "hparams.json")
    theirs = here / "mirror" / "models" / "124M" / "hparams.json"
    assert (here / "models" / "124M" / "hparams.json").read_bytes() == theirs.read_bytes()
    assert "Fetching hparams.json: 100%" in capsys.readouterr().err


def test_a_file_that_the_server_does_not_have_is_told(here, mirror):
    with pytest.raises(DownloadError, match=r"models/124M/other\.json: 404 Not Found"):
        gpt2.download_file_with_progress(mirror, "models/124M", "124M", "other.json")
    assert not list((here / "models" / "124M").iterdir())


# --- texts ---

ROWS = ["a plain row", 'with "quotes"', "with, a comma", "over\ntwo lines", "你好"]


@pytest.fixture
def table(here):
    """A CSV file with a header, two columns, and a blank line."""
    with (here / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "more"])
        writer.writerows([row, "x"] for row in ROWS)
        file.write("\r\n")
    return "table.csv"


def test_a_csv_becomes_a_text_with_marks(here, table):
    gpt2.encode_csv(table)
    expected = "".join(f"<|startoftext|>{row}<|endoftext|>\n" for row in ROWS)
    assert (here / "csv_encoded.txt").read_text("utf-8") == expected


def test_a_csv_without_a_header_and_with_other_marks(here, table):
    gpt2.encode_csv(table, "out.txt", header=False, start_token="<", end_token=">")
    assert (here / "out.txt").read_text("utf-8").startswith("<text>\n<a plain row>\n")


def test_what_is_not_utf_8_is_dropped(here):
    (here / "table.csv").write_bytes(b"text\nab\xffc\n")
    gpt2.encode_csv("table.csv")
    assert (here / "csv_encoded.txt").read_bytes() == b"<|startoftext|>abc<|endoftext|>\n"


def test_a_csv_that_is_not_there_is_told(here):
    with pytest.raises(FileNotFoundError):
        gpt2.encode_csv("missing.csv")
    assert not (here / "csv_encoded.txt").exists()


def arrays(path):
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def test_an_encoded_text_is_what_the_vocabulary_makes_of_it(here, have, text, capsys):
    directory = have("124M")
    gpt2.encode_dataset(text)
    assert capsys.readouterr().out == "Reading files\nWriting text_encoded.npz\n"
    tokenizer = open_tokenizer(open_checkpoint(directory).tokenizer_files, "")
    written = (here / text).read_text("utf-8") + "<|endoftext|>"  # short of 50,000 characters
    [(name, ids)] = arrays(here / "text_encoded.npz").items()
    assert (name, ids.dtype) == ("arr_0", np.int64)
    assert tokenizer.decode(ids.tolist()) == written


def test_numpys_ending_is_added_to_a_name_without_it(here, have, text, capsys):
    have("124M")
    gpt2.encode_dataset(text, out_path="encoded")
    assert capsys.readouterr().out.endswith("Writing encoded\n")
    assert (here / "encoded.npz").is_file()


def test_an_older_encoding_is_replaced(here, have, text):
    have("124M")
    (here / "text_encoded.npz").write_bytes(b"before")
    gpt2.encode_dataset(text)
    assert arrays(here / "text_encoded.npz")


def test_a_csv_is_learnt_as_its_encoding_is(here, have, table):
    have("124M")
    gpt2.encode_csv(table)
    gpt2.encode_dataset(table, out_path="direct.npz")
    gpt2.encode_dataset("csv_encoded.txt", out_path="by_way_of_text.npz", combine=1)
    [direct], [by_way_of_text] = arrays(here / "direct.npz").values(), arrays(here / "by_way_of_text.npz").values()
    assert direct.tolist() == by_way_of_text.tolist()


def test_without_a_model_there_is_no_vocabulary(text):
    with pytest.raises(FileNotFoundError, match=r"models/124M: no such model"):
        gpt2.encode_dataset(text)


def test_models_are_not_touched(have, text):
    directory = have("124M")
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}
    gpt2.encode_dataset(text)
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()} == before
