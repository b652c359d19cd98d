"""From process start to the first character on standard output: a saved random 124M, beside transformers.

Ours is `gpt2 generate PROMPT --model DIR`, as installed; the peer is the shortest script that does the same with
transformers: tokenizer, model and generate with a streamer. Both choose greedily and stop after four tokens; the
files are in the page cache. Usage: bench_first_token.py [rounds]. Needs ../shared/data.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from turns import heading, in_turn

from gpt2kit.config.model import SIZES
from gpt2kit.formats import huggingface
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.progress import silent
from gpt2kit.tokenizer.open import open_tokenizer

DATA = Path(__file__).parents[2] / "shared" / "data"
PROMPT = "The meaning of life is"
PEER = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
streamer = TextStreamer(tokenizer, skip_prompt=True)
model.generate(**tokenizer(sys.argv[2], return_tensors="pt"), max_new_tokens=4, do_sample=False, streamer=streamer,
               pad_token_id=50256)
"""


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    files = {name: (DATA / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    vocab_size = open_tokenizer(files, str(DATA)).vocab_size
    with tempfile.TemporaryDirectory() as place:
        huggingface.write(initial_checkpoint(SIZES["124M"].config(vocab_size), files, 0), Path(place), silent)
        gpt2 = str(Path(sys.executable).with_name("gpt2"))
        ours = [gpt2, "generate", PROMPT, "--model", place, "--temperature", "0", "--length", "4"]
        peer = [sys.executable, "-c", PEER, place, PROMPT]
        heading(
            "process start to first character, saved random 124M, torch "
            f"{torch.__version__}, transformers {transformers.__version__}"
        )
        for command in (ours, peer):
            print(f"  {60 / rate(command):.2f} s at the first start")
        in_turn(lambda _: rate(ours), lambda _: rate(peer), "starts/minute", rounds)


def rate(command: list[str]) -> float:
    """Starts a minute, each until its first character."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        first = process.stdout.read(1)
        seconds = time.perf_counter() - started
        process.stdout.read()
    assert first, f"no text from {command[:2]}, status {process.returncode}"
    return 60 / seconds


if __name__ == "__main__":
    main()
