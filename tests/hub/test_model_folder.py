"""All files of a model, from servers like the real ones, into directories in every state."""

import hashlib
import json
import subprocess
import sys
import warnings

import pytest

from gpt2kit.errors import DownloadError, FormatError, RunLocked
from gpt2kit.hub.manifest import MANIFEST, is_complete, is_unfinished, read_entries, write_manifest
from gpt2kit.hub.model_folder import ModelFolder, reserved
from gpt2kit.hub.order import place_order
from gpt2kit.hub.web import Web
from gpt2kit.progress import silent

DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture
def fill(tmp_path, catalogue):
    """Order a model and fill its directory, as a command would. Returns the directory."""

    def one(name, endpoint, **how):
        order = place_order(name, endpoint=endpoint, models=tmp_path, catalogue=catalogue, **how)
        with reserved(order.folder), Web(order.base, order.token) as web:
            entries = ModelFolder(order, web, silent, lambda seconds: None).fill()
            write_manifest(order.folder, name, order.source, entries)
        return order.folder

    return one


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_openais_files_are_fetched_in_their_order(store, fill, tmp_path, openai_files):
    folder = fill("tiny", store.url)
    assert folder == tmp_path / "tiny"
    assert contents(folder) == openai_files
    assert [asked.path for asked in store.asked] == [f"/models/tiny/{name}" for name in openai_files]


def test_an_old_name_has_a_directory_of_its_own(store, fill, tmp_path, openai_files):
    assert contents(fill("tinny", store.url)) == openai_files
    assert [path.name for path in tmp_path.iterdir()] == ["tinny"]


def test_what_was_downloaded_is_written_down(store, fill, openai_files):
    folder = fill("tiny", store.url)
    written = json.loads((folder / MANIFEST).read_text())
    assert (written["name"], written["source"]) == ("tiny", "openai")
    for name, content in openai_files.items():
        entry = written["files"][name]
        assert entry["url"] == f"{store.url}/models/tiny/{name}"
        assert entry["size"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert is_complete(folder)
    assert not is_unfinished(folder)


def test_files_that_are_in_place_are_not_asked_for(store, fill):
    fill("tiny", store.url)
    store.asked.clear()
    fill("tiny", store.url)
    assert store.asked == []


@pytest.mark.parametrize("name", [DATA, "vocab.bpe"])
def test_a_file_that_was_cut_is_completed(store, fill, openai_files, name):
    folder = fill("tiny", store.url)
    (folder / name).write_bytes(openai_files[name][:200])
    assert not is_complete(folder)
    store.asked.clear()
    assert contents(fill("tiny", store.url)) == openai_files
    assert store.ranges() == ["bytes=200-"]


def test_a_directory_that_was_copied_by_hand_is_verified_and_completed(store, fill, tmp_path, openai_files):
    (tmp_path / "tiny").mkdir()
    for name in ("encoder.json", "hparams.json"):
        (tmp_path / "tiny" / name).write_bytes(openai_files[name])
    (tmp_path / "tiny" / DATA).write_bytes(openai_files[DATA][:300_000])  # an old download that broke
    folder = fill("tiny", store.url)
    assert contents(folder) == openai_files
    asked = {asked.path.rpartition("/")[2]: asked.headers.get("range") for asked in store.asked}
    assert sorted(asked) == ["checkpoint", DATA, "model.ckpt.index", "model.ckpt.meta", "vocab.bpe"]
    assert asked[DATA] == "bytes=300000-"
    assert read_entries(folder)["encoder.json"].url is None


def test_another_file_in_the_place_of_one_is_moved_aside(store, fill, tmp_path, openai_files):
    mine = openai_files[DATA][::-1]  # trained further, and renamed, as the old tools asked for
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / DATA).write_bytes(mine)
    with pytest.warns(UserWarning, match=rf"{DATA}: not the released file \(its sha256 is .*\); kept as {DATA}.before"):
        folder = fill("tiny", store.url)
    assert contents(folder) == {**openai_files, f"{DATA}.before": mine}


def test_an_own_version_of_a_text_is_kept_beside(store, fill, tmp_path, openai_files):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "hparams.json").write_bytes(b'{"n_vocab": 7}')
    with pytest.warns(
        UserWarning, match=r"hparams.json: not the released file \(14 bytes, expected 70\); kept as hparams"
    ):
        folder = fill("tiny", store.url)
    assert contents(folder) == {**openai_files, "hparams.json.before": b'{"n_vocab": 7}'}


def test_what_is_kept_beside_replaces_nothing_that_was_kept_before(store, fill, tmp_path):
    (tmp_path / "tiny").mkdir()
    for number, name in enumerate(("hparams.json", "hparams.json.before", "hparams.json.before1")):
        (tmp_path / "tiny" / name).write_bytes(b'{"n_vocab": %d}' % number)
    with pytest.warns(UserWarning, match=r"kept as hparams\.json\.before2$"):
        kept = contents(fill("tiny", store.url))
    assert [kept[f"hparams.json.before{number}"] for number in ("", 1, 2)] == [
        b'{"n_vocab": %d}' % n for n in (1, 2, 0)
    ]


FAILURES = {
    "the server refuses": (lambda site: site.says(404), "404 Not Found: tiny has no"),
    "the server is in trouble": (lambda site: site.says(503), "503 Service Unavailable, 6 times in a row"),
    "the network is gone": (lambda site: site.serves(stop=0), "6 times in a row"),
    "the network goes amid it": (lambda site: site.serves(stop=70_000, part=False), "6 times in a row"),
    "another file comes": (
        lambda site: site.says(200, b"no weights"),
        "10 bytes, expected 413,376: not the released file",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_file_of_ones_own_is_back_in_its_place_where_the_released_one_does_not_come(
    store, fill, tmp_path, openai_files, failure
):
    mine, path = openai_files[DATA][::-1], tmp_path / "tiny" / DATA
    path.parent.mkdir()
    path.write_bytes(mine)
    act, problem = FAILURES[failure]
    store.always(f"/models/tiny/{DATA}", act(store))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that anything was kept elsewhere is not said
        with pytest.raises(DownloadError, match=problem):
            fill("tiny", store.url)
    assert path.read_bytes() == mine
    assert f"{DATA}.before" not in contents(path.parent)
    store.plans.clear()
    with pytest.warns(UserWarning, match=rf"kept as {DATA}\.before$"):
        fill("tiny", store.url)
    assert contents(path.parent) == {**openai_files, f"{DATA}.before": mine}


def test_a_missing_file_names_the_way_out(store, fill, tmp_path):
    del store.files["/models/tiny/hparams.json"]
    with pytest.raises(
        DownloadError, match=r"/models/tiny/hparams.json: 404 Not Found: tiny has no hparams.json there"
    ):
        fill("tiny", store.url)
    assert is_unfinished(tmp_path / "tiny")


def test_a_name_that_nobody_has_leaves_nothing(hub, fill, tmp_path):
    with pytest.raises(DownloadError, match="check the name, or take another mirror"):
        fill("hf:some/model", hub.url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["hf-safetensors", "hf-bin", "hf-tf-h5", "hf-safetensors/sharded", "hf-bin/sharded"])
def test_what_the_hub_has_is_found(hub, fill, golden, tmp_path, place):
    hub.put_folder("some/model", golden / place)
    folder = fill("hf:some/model", hub.url)
    assert folder == tmp_path / "some" / "model"
    left_out = {"expected.npz", "encodings.json", "README.md"}
    expected = {name: content for name, content in contents_of(golden / place).items() if name not in left_out}
    assert contents(folder) == expected


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_of_several_kinds_of_weights_one_is_enough(hub, fill, golden):
    hub.put_folder("some/model", golden / "hf-bin")
    hub.put_folder("some/model", golden / "hf-safetensors")
    folder = fill("hf:some/model", hub.url)
    assert (folder / "model.safetensors").exists()
    assert not (folder / "pytorch_model.bin").exists()


def test_weights_that_are_there_are_not_fetched_in_another_kind(hub, fill, golden, tmp_path):
    hub.put_folder("some/model", golden / "hf-bin")
    hub.put_folder("some/model", golden / "hf-safetensors")
    folder = tmp_path / "some" / "model"
    folder.mkdir(parents=True)
    for name in ("config.json", "pytorch_model.bin"):
        (folder / name).write_bytes((golden / "hf-bin" / name).read_bytes())
    fill("hf:some/model", hub.url)
    assert not (folder / "model.safetensors").exists()


def test_an_openai_name_can_come_from_the_hub(hub, fill, golden, tmp_path):
    hub.put_folder("maker/tiny-gpt2", golden / "hf-safetensors")
    assert fill("tiny", hub.url, source="huggingface") == tmp_path / "tiny"
    assert (tmp_path / "tiny" / "model.safetensors").exists()


def test_signed_addresses_are_not_written_down(hub, fill, golden):
    hub.put_folder("maker/hubonly", golden / "hf-safetensors")
    assert "secret" not in (fill("hubonly", hub.url) / MANIFEST).read_text()


def test_the_hash_that_the_hub_told_beforehand_counts(hub, fill, golden, tmp_path):
    hub.put_folder("maker/hubonly", golden / "hf-safetensors")
    (stored,) = hub.cdn.files.values()
    stored.content = stored.content[:-1] + b"!"
    with pytest.raises(DownloadError, match="what came is not the file: its sha256 is"):
        fill("hubonly", hub.url)
    assert not (tmp_path / "hubonly" / "model.safetensors").exists()


def test_large_files_are_resumed_across_the_redirect(hub, fill, golden):
    hub.put_folder("maker/hubonly", golden / "hf-safetensors")
    (path,) = hub.cdn.files
    hub.cdn.plan(path, hub.cdn.serves(stop=200_000), hub.cdn.serves())
    fill("hubonly", hub.url)
    assert hub.cdn.ranges()[1].startswith("bytes=")


def test_a_private_model_opens_with_a_token_that_the_cdn_does_not_see(hub, fill, golden, monkeypatch):
    hub.put_folder("maker/hubonly", golden / "hf-safetensors")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fill("hubonly", hub.url)
    assert {asked.headers.get("authorization") for asked in hub.site.asked} == {"Bearer hf_secret"}
    assert "hf_secret" not in str(hub.cdn.asked)


@pytest.mark.parametrize("status", [400, 401])
def test_a_refusal_of_a_tokenizer_file_is_not_taken_for_its_absence(hub, fill, golden, status):
    hub.put_folder("some/model", golden / "hf-safetensors")
    hub.site.always("/some/model/resolve/main/vocab.json", hub.site.says(status))
    with pytest.raises(DownloadError, match=rf"vocab.json: {status} "):
        fill("hf:some/model", hub.url)


@pytest.mark.parametrize("status", [401, 403])
def test_a_closed_door_speaks_of_the_token(hub, fill, monkeypatch, status):
    hub.site.always("/maker/hubonly/resolve/main/config.json", hub.site.says(status))
    with pytest.raises(DownloadError, match=rf"config.json: {status} .*; there is no such model, or it is private"):
        fill("hubonly", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(
        DownloadError, match=r"the token in HF_TOKEN does not open it: check it, accept the model's terms at .*hubonly"
    ):
        fill("hubonly", hub.url)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_stores_have_several_ways_to_say_that_an_optional_file_is_not_there(hub, fill, golden, status):
    hub.put_folder("maker/hubonly", golden / "hf-safetensors")
    hub.site.always("/maker/hubonly/resolve/main/added_tokens.json", hub.site.says(status))
    hub.site.always("/maker/hubonly/resolve/main/vocab.txt", hub.site.says(status))
    assert is_complete(fill("hubonly", hub.url))


def test_a_large_file_that_the_cdn_refuses_is_not_taken_for_absent(hub, fill, golden):
    hub.put_folder("maker/hubonly", golden / "hf-safetensors")
    hub.put_folder("maker/hubonly", golden / "hf-bin")
    path = "/" + hashlib.sha256((golden / "hf-safetensors" / "model.safetensors").read_bytes()).hexdigest()
    hub.cdn.always(path, hub.cdn.says(403))
    with pytest.raises(DownloadError, match=r"model\.safetensors: the server says 403 Forbidden, 6 times in a row"):
        fill("hubonly", hub.url)


def test_another_kind_of_model_is_refused_before_its_weights_come(hub, fill, tmp_path):
    hub.put("some/llama", "config.json", b'{"model_type": "llama"}')
    with pytest.raises(DownloadError, match="not a GPT-2 that can be used here: describes a 'llama' model"):
        fill("hf:some/llama", hub.url)
    assert list(tmp_path.iterdir()) == []
    assert len(hub.site.asked) == 1


def test_a_repository_without_weights_says_what_was_looked_for(hub, fill, golden):
    hub.put("some/model", "config.json", (golden / "hf-safetensors" / "config.json").read_bytes())
    with pytest.raises(DownloadError, match=r"no weights there .*model.safetensors, pytorch_model.bin, tf_model.h5"):
        fill("hf:some/model", hub.url)


@pytest.mark.parametrize("shard", ["../../evil.bin", "/etc/passwd", "a\\b.bin", "config.json", ".x.bin", "x.bin\n", ""])
def test_an_index_of_shards_leads_nowhere_else(hub, fill, golden, tmp_path, shard):
    hub.put("some/model", "config.json", (golden / "hf-safetensors" / "config.json").read_bytes())
    hub.put("some/model", "model.safetensors.index.json", json.dumps({"weight_map": {"wte": shard}}).encode())
    with pytest.raises(FormatError, match="expected a file in the same directory"):
        fill("hf:some/model", hub.url)
    assert [path.name for path in tmp_path.iterdir()] == ["some"]


HOLDER = """
import sys, time
from pathlib import Path
from gpt2kit.hub.model_folder import reserved
with reserved(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(30)
"""


def test_two_processes_do_not_download_into_one_directory(store, fill, tmp_path, openai_files):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "tiny")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "here\n"
        with pytest.raises(RunLocked, match="tiny: another process is downloading into it; wait until it is done"):
            fill("tiny", store.url)
        assert store.asked == []
        other.kill()
    assert contents(fill("tiny", store.url)) == openai_files


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": 3}', b'{"files": {"a": 3}, "source": []}'])
def test_a_damaged_note_is_as_good_as_none(store, fill, openai_files, content):
    folder = fill("tiny", store.url)
    (folder / MANIFEST).write_bytes(content)
    assert not is_complete(folder)
    store.asked.clear()
    assert contents(fill("tiny", store.url)) == openai_files
    assert store.asked == []
