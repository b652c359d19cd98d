import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.formats import openai
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint

pytestmark = pytest.mark.judges
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def written(model, tmp_path):
    """What we write for OpenAI's programs, out of each model."""
    openai.write(open_checkpoint(model.directory), tmp_path / "models" / "ours", silent)
    return tmp_path / "models" / "ours"


def openais_name(name):
    module, _, parameter = name.rpartition(".")
    path = "model/" + re.sub(r"^h\.", "h", module).replace(".", "/")
    if module in {"wte", "wpe"}:
        return path
    return f"{path}/{'b' if parameter == 'bias' else 'g' if 'ln_' in module else 'w'}"


def test_openais_code_reads_and_computes_the_same_with_what_we_write(ask, model, written):
    answer = ask("openai_model.py", written, model)
    model.agrees(answer)
    tensors = open_checkpoint(model.directory).tensors
    assert set(answer.more) == {openais_name(name) for name in tensors}
    for name, tensor in tensors.items():
        # Its matrices stand as [1, in, out].
        found = answer.more[openais_name(name)].reshape(tensor.shape)
        np.testing.assert_array_equal(found, tensor.read_float32())


def test_gpt_2_simple_writes_text_with_what_we_write(programs_of_2024, model, written, tmp_path):
    texts = tmp_path / "texts.json"
    done = subprocess.run(
        [programs_of_2024, PROGRAMS / "gpt_2_simple_text.py", written, texts],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    first, *others = json.loads(texts.read_text("utf-8"))
    assert others == [first, first]
