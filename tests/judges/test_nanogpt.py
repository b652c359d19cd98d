"""nanoGPT's own sample.py and train.py, with what we write, and on what they wrote, read by us and written again."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from hashlib import sha1
from pathlib import Path

import numpy as np
import pytest

from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.jobs.convert import convert
from gpt2kit.resolve import open_checkpoint
from gpt2kit.tokenizer.open import open_tokenizer

pytestmark = pytest.mark.judges
NANOGPT = Path(os.environ.get("GPT2KIT_NANOGPT", Path(__file__).parents[2] / ".judges" / "nanogpt"))
VOCABULARY = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"  # where tiktoken fetches GPT-2's
PROMPT, LENGTH = "Hello, my name is", 20
HERE = ("--device=cpu", "--dtype=float32", "--compile=False")


@pytest.fixture
def files(shared):
    """The files of GPT-2's vocabulary."""
    return {name: (shared / "data" / name).read_bytes() for name in ("vocab.bpe", "encoder.json")}


@pytest.fixture
def theirs(files, tmp_path):
    """theirs(program, *options): what a program of nanoGPT prints; its texts for training are noise."""
    if not (NANOGPT / "sample.py").is_file():
        pytest.skip(f"nanoGPT's source is not in {NANOGPT}: clone it there, or name it by GPT2KIT_NANOGPT")
    here, kept = tmp_path / "here", tmp_path / "kept"
    for place in (here / "data" / "noise", kept):
        place.mkdir(parents=True)
    (here / "configurator.py").symlink_to(NANOGPT / "configurator.py")
    noise = np.random.default_rng(0).integers(50257, size=1000, dtype=np.uint16)
    for part in ("train", "val"):
        noise.tofile(here / "data" / "noise" / f"{part}.bin")
    for name, content in files.items():
        (kept / sha1(f"{VOCABULARY}{name}".encode()).hexdigest()).write_bytes(content)

    def run(program, *options):
        done = subprocess.run(
            [sys.executable, NANOGPT / program, *HERE, *options],
            env={**os.environ, "TIKTOKEN_CACHE_DIR": str(kept)},
            cwd=here,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def text_of(theirs):
    """text_of(directory): the likeliest continuation of PROMPT by sample.py, PROMPT included."""

    def sampled(directory):
        said = theirs(
            "sample.py",
            *(f"--out_dir={directory}", f"--start={PROMPT}", f"--max_new_tokens={LENGTH}"),
            *("--num_samples=1", "--top_k=1", "--temperature=1.0"),
        )
        return re.search(r"assuming GPT-2 encodings\.\.\.\n(.*)\n-+\n", said, re.DOTALL)[1]

    return sampled


@pytest.fixture
def trained(theirs, tmp_path):
    """trained(directory, steps, *options): train.py has trained up to there, and saved after each step."""

    def train(directory, steps, *options):
        shape = ("--n_layer=2", "--n_head=2", "--n_embd=8", "--block_size=64", "--dataset=noise", "--batch_size=2")
        often = ("--eval_interval=1", "--eval_iters=1", "--gradient_accumulation_steps=1", "--warmup_iters=0")
        theirs("train.py", *shape, *often, f"--max_iters={steps}", f"--out_dir={directory}", *options)
        return directory

    return train


@pytest.fixture
def made(shared, tmp_path):
    """What we write of a GPT-2 with the released vocabulary."""
    with pytest.warns(UserWarning, match="nanoGPT computes gelu_exact"):
        convert(shared / "fixtures" / "openai-fullvocab", tmp_path / "made", to="nanogpt")
    return tmp_path / "made"


def likeliest(checkpoint, files):
    """The continuation of PROMPT that we find likeliest, PROMPT included; by nanoGPT's activation."""
    engine = ReferenceEngine(replace(checkpoint, config=replace(checkpoint.config, activation="gelu_exact")), 1)
    tokenizer = open_tokenizer(files, "")
    ids = tokenizer.encode(PROMPT)
    for _ in range(LENGTH):
        engine.truncate(0, 0)
        ids.append(int(engine.step([Row(0, ids, "last")]).argmax()))
    return tokenizer.decode(ids)


def test_sample_py_continues_what_we_write_as_we_do(made, text_of, files):
    assert text_of(made) == likeliest(open_checkpoint(made), files)


def test_train_py_goes_on_with_what_we_write(made, trained):
    before = open_checkpoint(made).tensors
    after = open_checkpoint(trained(made, 1, "--init_from=resume"))
    assert after.step == 1
    assert {name for name, tensor in after.tensors.items() if (tensor.read() != before[name].read()).any()} == {*before}


def test_what_train_py_made_goes_through_our_hands(trained, text_of, files, tmp_path):
    """Without biases, its vocabulary filled up to 50304."""
    theirs = trained(tmp_path / "theirs", 1)
    checkpoint = open_checkpoint(theirs)
    assert (checkpoint.config.vocab_size, checkpoint.step) == (50304, 1)
    text = text_of(theirs)
    assert text == likeliest(checkpoint, files)
    convert(theirs, tmp_path / "ours", to="nanogpt")
    assert text_of(tmp_path / "ours") == text
