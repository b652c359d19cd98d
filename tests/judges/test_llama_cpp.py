import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.formats.gguf_file import open_file
from gpt2kit.jobs.convert import convert
from gpt2kit.resolve import open_checkpoint

pytestmark = pytest.mark.judges
PROGRAMS = Path(__file__).parent / "programs"
GELU_TABLE = 0.05  # llama.cpp looks GELU up in a table of 16 bits


def test_llama_cpp_continues_our_file_as_we_do(ask_llama, model, tmp_path):
    convert(model.directory, tmp_path / "model.gguf", to="gguf")
    answer = ask_llama("llama_model.py", tmp_path / "model.gguf", model)
    assert answer.greedy == model.greedy
    np.testing.assert_allclose(answer.logits, model.logits, atol=GELU_TABLE, rtol=0)


def test_llama_cpp_runs_our_file_without_a_vocabulary(ask_llama, wide, tmp_path):
    convert(replace(open_checkpoint(wide.directory), tokenizer_files={}), tmp_path / "model.gguf", to="gguf")
    assert ask_llama("llama_model.py", tmp_path / "model.gguf", wide).greedy == wide.greedy


@pytest.fixture
def released(shared, model_in, tmp_path):
    """A model of OpenAI's, with the vocabulary of the released ones, and our file of it."""
    model = model_in(shared / "fixtures" / "openai-fullvocab")
    convert(model.directory, tmp_path / "model.gguf", to="gguf")
    return model, tmp_path / "model.gguf"


def test_llama_cpp_continues_a_model_of_the_released_vocabulary(ask_llama, released):
    model, file = released
    answer = ask_llama("llama_model.py", file, model)
    assert answer.greedy == model.greedy
    np.testing.assert_allclose(answer.logits, model.logits, atol=GELU_TABLE, rtol=0)


def test_llama_cpp_encodes_with_our_file_as_openais_encoder_does(llama_python, released, shared):
    """Their own texts, and those that llama.cpp tries its GPT-2 with: code, Chinese, emoji, runs of spaces."""
    model, file = released
    cases = json.loads((model.directory / "encodings.json").read_text("utf-8"))
    expected = {case["text"]: case["ids"] for case in cases}
    tried = shared / "data" / "ggml-vocab-gpt-2.gguf"
    texts = Path(f"{tried}.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    lines = Path(f"{tried}.out").read_text("utf-8").split("\n")
    expected |= {text: [int(id) for id in line.split()] for text, line in zip(texts, lines, strict=True)}
    done = subprocess.run(
        [llama_python, PROGRAMS / "llama_tokens.py", file],
        input=json.dumps([*expected]),
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert dict(zip(expected, json.loads(done.stdout.splitlines()[-1]), strict=True)) == expected


@pytest.mark.parametrize("dtype", ["q8_0", "q4_0"])
def test_our_blocks_are_those_of_its_quantiser(llama_program, wide, tmp_path, dtype):
    ours, exact, theirs = (tmp_path / f"{name}.gguf" for name in ("ours", "exact", "theirs"))
    convert(wide.directory, ours, to="gguf", dtype=dtype)
    convert(wide.directory, exact, to="gguf")
    subprocess.run([*llama_program, exact, "-", theirs, dtype], check=True, stdout=subprocess.DEVNULL)
    found, expected = (open_file(file)[1] for file in (ours, theirs))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].kind is tensor.kind, name
        np.testing.assert_array_equal(found[name].rows(), tensor.rows(), err_msg=name)
