import numpy as np
import pytest

from gpt2kit.formats import onnx_model
from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint

pytestmark = pytest.mark.judges


def test_optimum_computes_and_continues_with_what_we_write(ask_optimum, model, tmp_path):
    checkpoint = open_checkpoint(model.directory)
    onnx_model.write(checkpoint, tmp_path / "onnx", silent)
    answer = ask_optimum("optimum_model.py", tmp_path / "onnx", model)
    model.agrees(answer)
    engine = ReferenceEngine(checkpoint, 1)
    for prompt, generated in zip(([5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7]), answer.more["generated"], strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 20:
            engine.truncate(0, 0)
            ids.append(int(engine.step([Row(0, ids, "last")])[0].argmax()))
        np.testing.assert_array_equal(generated[-len(ids) :], ids)
