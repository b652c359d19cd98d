"""What a name asks for, before anything is fetched."""

from pathlib import Path

import pytest

from gpt2kit.errors import ConfigError, ModelNotFound
from gpt2kit.hub.order import place_order

AZURE = "https://openaipublic.blob.core.windows.net/gpt-2/models"
HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("name", "folder", "url"),
    [
        ("124M", "124M", f"{AZURE}/124M/vocab.bpe"),
        ("117M", "117M", f"{AZURE}/124M/vocab.bpe"),
        ("345M", "345M", f"{AZURE}/355M/vocab.bpe"),
        ("762M", "762M", f"{AZURE}/774M/vocab.bpe"),
        ("1.5B", "1.5B", f"{AZURE}/1558M/vocab.bpe"),
        ("gpt2", "gpt2", f"{HUB}/openai-community/gpt2/resolve/main/vocab.bpe"),
        ("gpt2-xl", "gpt2-xl", f"{HUB}/openai-community/gpt2-xl/resolve/main/vocab.bpe"),
        ("distilgpt2", "distilgpt2", f"{HUB}/distilbert/distilgpt2/resolve/main/vocab.bpe"),
        ("openai-community/gpt2", "openai-community/gpt2", f"{HUB}/openai-community/gpt2/resolve/main/vocab.bpe"),
        ("hf:some.one/my_gpt-2", "some.one/my_gpt-2", f"{HUB}/some.one/my_gpt-2/resolve/main/vocab.bpe"),
    ],
)
def test_a_name_means_a_directory_and_an_address(name, folder, url):
    order = place_order(name)
    assert order.folder == Path("models") / folder
    assert order.url("vocab.bpe") == url


def test_the_source_can_be_chosen():
    assert place_order("117M", source="huggingface").url("f") == f"{HUB}/openai-community/gpt2/resolve/main/f"
    assert place_order("gpt2-medium", source="openai").url("f") == f"{AZURE}/355M/f"


@pytest.mark.parametrize("name", ["distilgpt2", "hf:some/model"])
def test_what_openai_never_had_is_not_looked_for_there(name):
    with pytest.raises(ConfigError, match=r"not in OpenAI's store.*: gpt2 download .* --source huggingface"):
        place_order(name, source="openai")


def test_a_source_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="source must be openai or huggingface, got 'ftp'"):
        place_order("124M", source="ftp")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpt2-mediun", "did you mean 'gpt2-medium'?"),
        ("some/model", "for a repository of the hub write hf:some/model"),
        ("llama", "known are 124M, gpt2, 355M, gpt2-medium, 774M, .*; any repository of the hub is hf:owner/name"),
        ("", "known are 124M"),
    ],
)
def test_a_slip_gets_a_hint(name, hint):
    with pytest.raises(ModelNotFound, match=hint):
        place_order(name)


@pytest.mark.parametrize(
    "name",
    [
        *("..", "../x", "/etc", "hf:../x", "hf:a/../b", "hf:../..", "hf:/etc/passwd", "hf:a/b/c", "hf:.git/x", "hf:"),
        *("hf:a\\b", "hf:C:/x", "hf:a/b?x", "hf:a/b#x", "hf:a/ b", "hf:a/b\n", "hf:a/", "hf:ä/b"),
    ],
)
def test_no_name_leads_out_of_the_directory_of_models(name):
    with pytest.raises(ModelNotFound):
        place_order(name)


def test_a_mirror_of_the_hub_comes_from_the_environment_or_the_option(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hf-mirror.com/")
    assert place_order("gpt2").base == "https://hf-mirror.com"
    assert place_order("gpt2", endpoint="http://localhost:8080/hub/").url("f") == (
        "http://localhost:8080/hub/openai-community/gpt2/resolve/main/f"
    )
    assert place_order("124M").base == "https://openaipublic.blob.core.windows.net/gpt-2"


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://x", "hf-mirror.com", "https://", "https://me:secret@x", "https://x?y=1", "http://[x", "http://x:9e9"],
)
def test_an_address_that_cannot_be_one_is_refused(endpoint):
    with pytest.raises(ConfigError, match="--endpoint is not an address to fetch from") as error:
        place_order("gpt2", endpoint=endpoint)
    assert "secret" not in str(error.value)


def test_the_token_comes_from_the_environment_for_the_hub_only(monkeypatch):
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_old\n")
    assert place_order("gpt2").token == "hf_old"
    monkeypatch.setenv("HF_TOKEN", "hf_new")
    assert place_order("gpt2").token == "hf_new"
    assert place_order("124M").token is None
    assert "hf_new" not in repr(place_order("gpt2"))


def test_a_token_that_cannot_be_one_is_refused_and_not_shown(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret\r\nX-Evil: 1")
    with pytest.raises(ConfigError, match="HF_TOKEN is not a token: copy it again") as error:
        place_order("gpt2")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(("file", "source"), [("hparams.json", "openai"), ("config.json", "huggingface")])
def test_the_files_that_are_there_decide_the_source(tmp_path, file, source):
    for name in ("124M", "gpt2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
        assert place_order(name, models=tmp_path).source == source


def test_files_of_two_sources_are_not_mixed(tmp_path):
    (tmp_path / "124M").mkdir()
    (tmp_path / "124M" / "hparams.json").write_text("{}")
    with pytest.raises(
        ConfigError, match="124M: holds files from openai, and those from huggingface would mix with them"
    ):
        place_order("124M", source="huggingface", models=tmp_path)
