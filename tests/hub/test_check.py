"""What a file must look like, by files of other programs and by what servers send in their place."""

import struct

import pytest

from gpt2kit.hub.check import hash_problem, structure_problem
from gpt2kit.hub.promise import Promise
from gpt2kit.progress import silent

GOOD = {
    "openai-tiny": ["checkpoint", "encoder.json", "hparams.json", "vocab.bpe", "model.ckpt.index"],
    "hf-safetensors": ["config.json", "merges.txt", "tokenizer.json", "vocab.json", "model.safetensors"],
    "hf-bin": ["pytorch_model.bin"],
    "hf-2019-bin/lmhead_decoder": ["pytorch_model.bin"],
    "hf-tf-h5": ["tf_model.h5"],
}
NAMES = sorted({name for names in GOOD.values() for name in names})
PAGES = [b"<!doctype html><p>log in", b"\xef\xbb\xbf \n<HTML>", b"<?xml version='1.0'?><Error/>", b"<html lang=en>"]


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder, names in GOOD.items() for name in names])
def test_files_of_other_programs_are_right(golden, folder, name):
    assert structure_problem(golden / folder / name, name) is None


@pytest.mark.parametrize("name", [*NAMES, "vocab.txt", "model.ckpt.data-00000-of-00001", "model.ckpt.meta"])
@pytest.mark.parametrize("page", PAGES)
def test_a_web_page_is_no_file_of_a_model(tmp_path, name, page):
    (tmp_path / name).write_bytes(page)
    assert structure_problem(tmp_path / name, name) == "it is a web page"


@pytest.mark.parametrize("name", [*NAMES, "model.ckpt.meta"])
def test_an_empty_file_is_no_file_of_a_model(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert structure_problem(tmp_path / name, name) == "it is empty"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("config.json", b'{"n_layer": 12', "not JSON: "),
        ("config.json", b"[1, 2]", "a JSON list; expected an object"),
        ("config.json", b"Entry not found", "not JSON: "),
        ("merges.txt", b"#version: 0.2\nt h\nh e\nnot a merge\n", "line 4 is 'not a merge', expected two tokens"),
        ("vocab.bpe", b"\xff\xfe", "it is not text"),
        ("vocab.txt", b"\xff\xfe", "it is not text"),
        ("checkpoint", b"Not Found", "it names no checkpoint"),
        ("model.ckpt.index", bytes(100), "it does not end as TensorFlow's tables do"),
        ("model.ckpt.index", bytes.fromhex("57fb808b247547db"), "it does not end as TensorFlow's tables do"),
        ("model.ckpt.data-00000-of-00001", bytes(7), "3 bytes more than whole float32 numbers"),
        (
            "pytorch_model.bin",
            b"version https://git-lfs",
            "it starts with 76 65 72 73 69 6f 6e 20, expected 50 4b 03 04",
        ),
        ("tf_model.h5", b"version https://git-lfs", "it starts with 76 65 72 73 69 6f 6e 20, expected 89 48 44 46"),
        ("model.safetensors", struct.pack("<Q", 1 << 60), "claims a header of 1152921504606846976 bytes"),
        ("model.safetensors", struct.pack("<Q", 3) + b"oh!", "not JSON"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    assert structure_problem(tmp_path / name, name).startswith(problem)


def test_a_cut_safetensors_file_is_noticed(tmp_path, golden):
    whole = (golden / "hf-safetensors" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-1])
    assert "ends 1 bytes before its last tensor" in structure_problem(
        tmp_path / "model.safetensors", "model.safetensors"
    )


# `printf 'hello' | sha256sum`, `| md5sum`, `| git hash-object --stdin`
HELLO = {
    "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "md5": "5d41402abc4b2a76b9719d911017c592",
    "git_sha1": "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",
}


@pytest.mark.parametrize("known", [{}, {"size": 5}, *({name: value} for name, value in HELLO.items())])
def test_hashes_that_agree_are_no_problem(tmp_path, known):
    (tmp_path / "f").write_bytes(b"hello")
    assert hash_problem(tmp_path / "f", Promise(**known), silent, "f") == (HELLO["sha256"], None)


@pytest.mark.parametrize("known", [{"size": 6}, *({name: "0" * len(value)} for name, value in HELLO.items())])
def test_hashes_that_differ_are_named(tmp_path, known):
    (tmp_path / "f").write_bytes(b"hello")
    problem = hash_problem(tmp_path / "f", Promise(**known), silent, "f")[1]
    (name,) = known
    assert problem == (
        "5 bytes, expected 6" if name == "size" else f"its {name} is {HELLO[name]}, expected {known[name]}"
    )
