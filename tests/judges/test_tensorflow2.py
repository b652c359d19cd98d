import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.resolve import open_checkpoint

pytestmark = pytest.mark.judges
PROGRAM = Path(__file__).parent / "programs" / "tf2_make.py"
WAYS = ["checkpoint", "weights", "pretrained/saved_model/1", "plain", "trained", "keras", "earlier"]


def test_what_tensorflow_keeps_anew_computes_the_same_here(programs_of_2024, tmp_path):
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([programs_of_2024, PROGRAM, tmp_path, "7"], check=True, env=variables, timeout=600)
    for way in WAYS:
        expected = np.load(tmp_path / way.partition("/")[0] / "expected.npz")
        engine = ReferenceEngine(open_checkpoint(tmp_path / way), 1)
        for ids, logits_TV in zip(expected["tokens_1"].tolist(), expected["logits_1"], strict=True):
            engine.truncate(0, 0)
            found_TV = engine.step([Row(0, ids, "all")])
            np.testing.assert_allclose(found_TV, logits_TV, atol=1e-4, rtol=0, err_msg=way)
