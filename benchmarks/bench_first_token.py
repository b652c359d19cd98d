"""From process start to the first character on standard output: a random 124M, beside llama.cpp and transformers.

Ours is `gpt2 generate PROMPT --model DIR`, as installed: install gpt2kit without -e first. llama.cpp's is its program
llama-completion without warm-up; transformers' the shortest script that does the same. All choose greedily; files are
in the page cache, ours are packed. They take turns. Usage: bench_first_token.py [rounds]. Needs ../shared/data; what is
missing of the peers is built first (see peers/build.py).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from load.served import random_model
from peers.build import converters, gguf, llama_program
from turns import heading

PROMPT = "The meaning of life is"
TRANSFORMERS = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
streamer = TextStreamer(tokenizer, skip_prompt=True)
model.generate(**tokenizer(sys.argv[2], return_tensors="pt"), max_new_tokens=4, do_sample=False, streamer=streamer,
               pad_token_id=50256)
"""


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    heading(f"process start to first character, random 124M, median of {rounds}")
    contenders = {
        "gpt2 generate, fp32": ours("fp32"),
        "llama-completion, F32": llama("F32"),
        "gpt2 generate, int8": ours("int8"),
        "llama-completion, Q8_0": llama("Q8_0"),
        "transformers, float32": [str(converters()), "-c", TRANSFORMERS, str(random_model("124M")), PROMPT],
    }
    for command in contenders.values():
        seconds_of(command)  # packs, and fills the page cache
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders if number % 2 == 0 else reversed(contenders):
            taken[name].append(seconds_of(contenders[name]))
    for name, seconds in taken.items():
        print(f"  {name}: {statistics.median(seconds):.3f} s, {min(seconds):.3f} to {max(seconds):.3f}")


def ours(precision: str) -> list[str]:
    gpt2 = str(Path(sys.executable).with_name("gpt2"))
    options = ("--temperature", "0", "--length", "4", "--precision", precision)
    return [gpt2, "generate", PROMPT, "--model", str(random_model("124M")), *options]


def llama(kind: str) -> list[str]:
    model = str(gguf(random_model("124M"), kind))
    options = ("-n", "4", "--temp", "0", "--threads", "2", "--no-warmup", "--no-display-prompt", "-no-cnv")
    return [str(llama_program("llama-completion")), "-m", model, "-p", PROMPT, *options]


def seconds_of(command: list[str]) -> float:
    """Until its first character."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        first = process.stdout.read(1)
        seconds = time.perf_counter() - started
        process.stdout.read()
    assert first, f"no text from {command[:2]}, status {process.returncode}"
    return seconds


if __name__ == "__main__":
    main()
