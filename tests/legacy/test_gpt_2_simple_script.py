"""A script as tutorials print it, in a process of its own, unchanged: `import gpt_2_simple as gpt2`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
COMPAT = Path(__file__).parents[2] / "compat" / "gpt_2_simple" / "src"
# Of the tutorial on talking like Friends. Its download is done already; 2 steps instead of 2000.
SCRIPT = """
import gpt_2_simple as gpt2
import os

model_name = "345M"
if not os.path.isdir(os.path.join("models", model_name)):
    gpt2.download_gpt2(model_name=model_name)

sess = gpt2.start_tf_sess()
gpt2.finetune(sess,
              dataset="friends.txt",
              model_name=model_name,
              steps=2,
              restore_from='fresh',
              print_every=1,
              sample_every=200,
              save_every=500)

sess = gpt2.start_tf_sess()
gpt2.load_gpt2(sess)
gpt2.generate(sess, length=20, temperature=0.7, prefix="Ross:", nsamples=2, batch_size=2)
"""


def test_a_script_of_2019_runs_as_it_is(here, have_wide):
    have_wide("345M")
    (here / "friends.txt").write_text("Ross: Hi.\nRachel: Hi!\n" * 200, encoding="utf-8")
    (here / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(COMPAT)},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in ("Loading checkpoint models/345M/model.ckpt", "Training...", "Saving checkpoint/run1/model-2"):
        assert f"{line}\n" in done.stdout
    written = done.stdout.rpartition("Loading checkpoint checkpoint/run1/model-2\n")[2]
    assert written.count("====================\n") == 2
    assert written.count("Ross:") >= 2
    assert "Traceback" not in done.stderr
