"""Native engine beside llama.cpp, CTranslate2 and transformers on two threads, random weights of GPT-2's shapes.

decode: 128 new tokens after 16, greedy, batch 1, prompt included. Each contender's share of the bandwidth is
    bytes of weights * tokens/s / what two threads read just then (the larger of the probes around the round).
batch: 32 texts at once, after their prompts. Ours chooses every token with top_k 40; llama.cpp only thinks.
prefill: 512 ids of one prompt.
Every contender is a process of its own that keeps its model (peers/); they take turns and sleep in between.
Usage: bench_native.py [size [rounds [part of a title]]], for example: bench_native.py 355M 15 Q8_0.
Needs ../shared/data. What is missing of peers and models is built under $GPT2KIT_PEERS, or build/peers: 10 to 20
minutes, once. gpt2kit itself must be installed with its native engine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from load.served import random_model
from turns import heading

from gpt2kit.generate.native_engine import ReadSpeed

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("GPT2KIT_PEERS", HERE.parent / "build" / "peers"))
THREADS = 2
PROBE_BYTES = 1 << 30
PAUSE = 0.2  # seconds until the threads of a contender that has answered no longer look for work
LLAMA = "llama_cpp_python-0.3.36"
CONVERTERS = ("torch==2.13.0", "transformers==5.23.0", "ctranslate2==4.8.5")
# llama.cpp finds out what this processor can do when it is compiled.
LLAMA_CMAKE = "-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF"
# gcc 12 takes the tiles' sizes for unused, leaves them 0, and the first token ends llama.cpp with a segmentation fault
# where the processor has AMX (its issue 20824). One line keeps them.
LOADS_TILES = "    _tile_loadconfig(&tc);"
FILLED = '    __asm__ volatile("" : : "m"(tc));\n'
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # as ours has them; where the system leaves the choice


@dataclass(frozen=True)
class Comparison:
    """Two contenders and what both are asked."""

    kind: str
    ours: str
    peer: str
    precision: str


ASKED = {"decode": "decode 16 128", "batch": "batch 32 16 64", "prefill": "prefill 512 2"}
COMPARISONS = (
    Comparison("decode", "fp32", "llama.cpp", "F32"),
    Comparison("decode", "bf16", "llama.cpp", "BF16"),
    Comparison("decode", "int8", "llama.cpp", "Q8_0"),
    Comparison("decode", "int4", "llama.cpp", "Q4_0"),
    Comparison("decode", "fp32", "transformers", "float32"),
    Comparison("decode", "int8", "CTranslate2", "int8"),
    Comparison("batch", "int8", "llama.cpp", "Q8_0"),
    Comparison("prefill", "bf16", "llama.cpp", "BF16"),
    Comparison("prefill", "int8", "llama.cpp", "Q8_0"),
)


def main() -> None:
    size, rounds, wanted = (*sys.argv[1:], *("124M", "15", "")[len(sys.argv) - 1 :])
    read_speed = ReadSpeed(PROBE_BYTES)
    heading(f"native engine, random {size}, {THREADS} threads")
    for each in COMPARISONS:
        title = f"{each.kind}, ours {each.ours} beside {each.peer} {each.precision}"
        if wanted in title:
            print(title, flush=True)
            compare(each, size, int(rounds), read_speed)


# --- taking turns ---


class Contender:
    """A program of peers/ with a model in memory."""

    def __init__(self, python: Path | str, program: str, *arguments: Path | str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [python, HERE / "peers" / program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, **variables},
        )
        self.about = self.ask("about")

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"{self.process.args} ended; stderr says why"
        time.sleep(PAUSE)
        return json.loads(answer)

    def close(self) -> None:
        self.process.communicate()


def compare(comparison: Comparison, size: str, rounds: int, read_speed: ReadSpeed) -> None:
    """Both in turn, order swapped each round; print what came of it."""
    asked, pair = ASKED[comparison.kind], (ours(comparison, size), peer(comparison, size))
    if features := pair[1].about.get("features"):
        print(f"  {features.replace(' = 1', '')}")
    try:
        first = [each.ask(asked) for each in pair]  # the first use of memory costs more
        for each in pair:
            print(f"  {each.about['name']}: {each.about['bytes'] / 1e6:.0f} MB of weights a token")
        answers: list[list[dict[str, Any]]] = []
        probes = [read_speed(THREADS)]
        for number in range(rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            found = {place: pair[place].ask(asked) for place in order}
            answers.append([found[0], found[1]])
            probes.append(read_speed(THREADS))
    finally:
        for each in pair:
            each.close()
    if "ids" in first[0]:
        same = [mine == theirs for mine, theirs in zip(first[0]["ids"], first[1]["ids"], strict=True)]
        print(f"  the first {(*same, False).index(False)} of {len(same)} ids are equal")
    rates = np.array([[answer["rate"] for answer in pair] for pair in answers])
    ratios = sorted(rates[:, 0] / rates[:, 1])
    middle = np.median(rates, axis=0)
    print(f"  ours {middle[0]:.1f} tokens/s, peer {middle[1]:.1f}", end="")
    if comparison.kind == "decode":
        around = np.maximum(probes[:-1], probes[1:])[:, None]
        shares = np.median(rates * [each.about["bytes"] for each in pair] / around, axis=0)
        print(f"; share of the bandwidth: ours {shares[0]:.0%}, peer {shares[1]:.0%}", end="")
    if "choosing" in first[0]:
        print(f"; choosing took {statistics.median(a[0]['choosing'] for a in answers):.0%} of our time", end="")
    print(f"\n  ratio: median {statistics.median(ratios):.3f}, lower quartile {ratios[len(ratios) // 4]:.3f}", end="")
    print(
        f", of {rounds} rounds; probe {min(probes) / 1e9:.1f} to {max(probes) / 1e9:.1f} GB/s, two threads", flush=True
    )


def ours(comparison: Comparison, size: str) -> Contender:
    slots = "32" if comparison.kind == "batch" else "1"
    return Contender(sys.executable, "ours.py", random_model(size), comparison.ours, slots)


def peer(comparison: Comparison, size: str) -> Contender:
    precision, model = comparison.precision, random_model(size)
    if comparison.peer == "llama.cpp":
        return Contender(llama(), "llama.py", gguf(size, precision), **HUGE_PAGES)
    if comparison.peer == "CTranslate2":
        python, vocabulary = environment("ctranslate2", CONVERTERS[-1]), model / "vocab.json"
        return Contender(python, "ctranslate2_.py", ct2(size, precision), vocabulary, precision, **HUGE_PAGES)
    return Contender(converters(), "transformers_.py", model, precision, **HUGE_PAGES)


# --- what is built once: each rule makes one file or folder, under another name until it is whole ---


def made(target: Path, rule: Callable[[Path], None]) -> Path:
    """The target; the rule makes it if it is missing."""
    if not target.exists():
        print(f"  making {target}", file=sys.stderr)
        part = target.with_name(f"part-{target.name}")
        part.parent.mkdir(parents=True, exist_ok=True)
        rule(part)
        part.rename(target)
    return target


def environment(name: str, *packages: Path | str, **variables: str) -> Path:
    """The interpreter of a virtual environment of its own with these packages."""
    place = PEERS / name
    python = place / "bin" / "python"

    def rule(part: Path) -> None:
        venv.create(place, clear=True, symlinks=True, with_pip=True)
        run(python, "-m", "pip", "install", "--quiet", *packages, **variables)
        part.touch()

    made(place / "installed", rule)
    return python


def converters() -> Path:
    """The interpreter with torch: transformers, and the converters of the others."""
    return environment("transformers", *CONVERTERS)


def llama_source() -> Path:
    """What llama-cpp-python is built from; llama.cpp's converter lies in it."""

    def rule(part: Path) -> None:
        pinned = LLAMA.replace("_", "-").replace("python-", "python==")
        run(converters(), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", PEERS, pinned)
        with tarfile.open(PEERS / f"{LLAMA}.tar.gz") as archive:
            archive.extractall(part, filter="data")
        file = part / LLAMA / "vendor" / "llama.cpp" / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
        text = file.read_text("utf-8")
        assert text.count(LOADS_TILES) == 1, f"{file} is another one than expected"
        file.write_text(text.replace(LOADS_TILES, FILLED + LOADS_TILES), "utf-8")

    return made(PEERS / "llama-source", rule) / LLAMA


def llama() -> Path:
    """The interpreter with llama.cpp, compiled for this processor."""
    return environment("llama", llama_source(), CMAKE_ARGS=LLAMA_CMAKE)


def gguf(size: str, kind: str) -> Path:
    """The random model as llama.cpp keeps it, made by its own converter and quantiser."""
    program = llama_source() / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
    whole = PEERS / "models" / size / "F32.gguf"
    made(whole, lambda part: run(converters(), program, random_model(size), "--outtype", "f32", "--outfile", part))
    if kind == "F32":
        return whole
    return made(
        whole.with_name(f"{kind}.gguf"), lambda part: run(llama(), HERE / "peers" / "quantise.py", whole, part, kind)
    )


def ct2(size: str, kind: str) -> Path:
    """The random model as CTranslate2 keeps it."""
    program = converters().with_name("ct2-transformers-converter")
    return made(
        PEERS / "models" / size / f"ctranslate2-{kind}",
        lambda part: run(program, "--model", random_model(size), "--output_dir", part, "--quantization", kind),
    )


def run(*command: Path | str, **variables: str) -> None:
    """Run it to its end; what it says goes to a file that is named if it fails."""
    log = PEERS / "log.txt"
    with log.open("a", encoding="utf-8") as said:
        done = subprocess.run(command, stdout=said, stderr=said, env={**os.environ, **variables})
    assert done.returncode == 0, f"{command} failed; see {log}"


if __name__ == "__main__":
    main()
