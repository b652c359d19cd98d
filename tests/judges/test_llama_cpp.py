import subprocess

import numpy as np
import pytest

from gpt2kit.formats.gguf_file import open_file
from gpt2kit.jobs.convert import convert

pytestmark = pytest.mark.judges
GELU_TABLE = 0.05  # llama.cpp looks GELU up in a table of 16 bits


def test_llama_cpp_continues_our_file_as_we_do(ask_llama, model, tmp_path):
    convert(model.directory, tmp_path / "model.gguf", to="gguf")
    answer = ask_llama("llama_model.py", tmp_path / "model.gguf", model)
    assert answer.greedy == model.greedy
    np.testing.assert_allclose(answer.logits, model.logits, atol=GELU_TABLE, rtol=0)


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
