"""gpt_2_simple.finetune with its defaults, ours beside the real program: seconds a step, and the memory of the process.

A random 124M of OpenAI's vocabulary, real text, windows of 1024 tokens, 5 accumulated, on the CPU. In turn, in two
processes each; a step counts from the second on. The real program is the judges' (`make judges` builds their
environment). Needs ../shared and 3 GB. Usage: bench_simple.py [STEPS]
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from turns import heading

from gpt2kit.config.model import SIZES
from gpt2kit.formats import openai
from gpt2kit.formats.huggingface import read_tokenizer_files
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.progress import silent

CHECKOUT = Path(__file__).parents[1]
SHARED = CHECKOUT.parent / "shared"
REAL = CHECKOUT / ".judges" / "2024" / "bin" / "python"
PROGRAMS = {
    "gpt2kit": (sys.executable, "from gpt2kit import simple as gpt2"),
    "gpt-2-simple 0.8.1": (REAL, "import gpt_2_simple as gpt2"),
}
SCRIPT = """
import resource
{importing}
sess = gpt2.start_tf_sess()
gpt2.finetune(sess, "text.txt", steps={steps}, run_name="{run}", sample_every=10**6, save_every=10**6)
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
LINE = re.compile(r"\[\d+ \| ([\d.]+)\] loss=")


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    place = Path(tempfile.mkdtemp())
    try:
        heading(f"gpt_2_simple.finetune, a random 124M, {steps} steps of 5 windows")
        model = place / "models" / "124M"
        openai.write(
            initial_checkpoint(SIZES["124M"].config(50257), read_tokenizer_files(SHARED / "data"), 0), model, silent
        )
        (model / "model.ckpt.meta").touch()
        text = (SHARED / "data" / "wikitext-2.test.txt").read_text("utf-8")[:400_000]
        (place / "text.txt").write_text(text, "utf-8")
        for round in (1, 2):
            for name, (python, importing) in PROGRAMS.items():
                print(f"  round {round}  {name:20}{measured(str(python), importing, f'run{round}', steps, place)}")
    finally:
        shutil.rmtree(place)


def measured(python: str, importing: str, run: str, steps: int, place: Path) -> str:
    shutil.rmtree(place / "checkpoint", ignore_errors=True)
    script = SCRIPT.format(importing=importing, steps=steps, run=run)
    done = subprocess.run([python, "-c", script], cwd=place, capture_output=True, encoding="utf-8")
    times = [float(seconds) for seconds in LINE.findall(done.stdout)]
    if done.returncode or len(times) < 3:
        return f"failed: {done.stderr.strip().splitlines()[-1:]}"
    spans = [later - before for before, later in pairwise(times)]
    peak = re.search(r"PEAK (\d+)", done.stdout)
    return f"{statistics.median(spans):6.2f} s a step, peak {int(peak[1]) / 1e9:.1f} GB" if peak else "no peak"


if __name__ == "__main__":
    main()
