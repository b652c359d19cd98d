import pytest

from gpt2kit.formats import keras_h5
from gpt2kit.progress import silent
from gpt2kit.resolve import open_checkpoint

pytestmark = pytest.mark.judges


def test_keras_computes_the_same_with_what_we_write(ask, model, tmp_path):
    keras_h5.write(open_checkpoint(model.directory), tmp_path / "h5", silent)
    answer = ask("keras_model.py", tmp_path / "h5", model)
    model.agrees(answer)
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert answer.more[trouble].tolist() == []
    assert "newly initialized" not in answer.said
    assert "were not used" not in answer.said
