"""The first tutorial, line by line, with today's lines: every fixture is a step of it, every test what it says of one.

Its model is a stand-in for the 345M, with 320 tokens and the real window; apart from names and numbers the lines are
those of 2019, less what had to be renamed, copied and edited between them.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import chdir
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import gpt2kit
from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.hub.catalogue import KnownFile, KnownModel
from gpt2kit.legacy.openai import download_model

CHECKOUT = Path(__file__).parents[2]
FILES = (
    *("checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001"),
    *("model.ckpt.index", "model.ckpt.meta", "vocab.bpe"),
)
FRIENDS = (
    "Rachel: I love Andy.\nAndy: You had me at coffee.\nRoss: We were on a break!\nJoey: How are you doing?\n\n" * 60
)
TRAIN = (
    *("train.py", "--dataset", "data/friends.txt.npz", "--model_name", "345M", "--run_name", "friends"),
    *("--sample_every", "5", "--save_every", "10", "--sample_length", "20"),
)
STEP = re.compile(r"^\[(\d+) \| \d+\.\d\d\] loss=\d+\.\d\d avg=\d+\.\d\d$", re.MULTILINE)
SAMPLE = "=" * 40 + " SAMPLE {} " + "=" * 40
FINETUNE_CELLS = """
import gpt_2_simple as gpt2

gpt2.download_gpt2(model_name="345M")
sess = gpt2.start_tf_sess()
gpt2.finetune(sess, dataset="friends.txt", model_name='345M', steps=6, restore_from='fresh', print_every=2,
              sample_every=3, save_every=3)
"""
GENERATE_CELLS = r"""
import gpt_2_simple as gpt2

sess = gpt2.start_tf_sess()
gpt2.load_gpt2(sess)
gpt2.generate(sess, length=30, temperature=0.7, prefix="Rachel: I love", nsamples=5, batch_size=5)
print("CELL")
gpt2.generate(sess, length=30, temperature=0.7, prefix="Rachel:", nsamples=5, batch_size=5, truncate="\n",
              include_prefix=False)
"""
PROBE = [1, 5, 300, 17, 42, 42, 7, 260]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process"),
]


def run(here, *words, typed=b""):
    """Standard output of this Python in `here`, which finds gpt_2_simple in compat/; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "compat" / "gpt_2_simple" / "src")}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=here, env=environment, input=typed, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()  # not by subprocess, which makes \n of a model's \r


def legacy(here, *words, typed=b""):
    """Standard output of an old program's call line."""
    return run(here, "-m", "gpt2kit", "legacy", *words, typed=typed)


def train_until(here, step):
    """Run the line that trains; press Ctrl-C after `step` is printed. Returns all that it printed."""
    command = [sys.executable, "-m", "gpt2kit", "legacy", *TRAIN]
    with (
        open(here / "errors.txt", "w+", encoding="utf-8") as errors,
        subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8") as process,
    ):
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(f"[{step} |"):
                process.send_signal(signal.SIGINT)
        watchdog.cancel()
        assert process.wait(10) == 0
        errors.seek(0)
        assert "Traceback" not in errors.read()
    return "".join(lines)


def steps(printed):
    """The numbers of the steps that were printed."""
    return [int(step) for step in STEP.findall(printed)]


def assert_untouched(model, store):
    """The model's files are those that were downloaded."""
    for name in FILES:
        assert (model / name).read_bytes() == (store[0] / "models" / "355M" / name).read_bytes(), name


def logits(checkpoint):
    """What the plain engine makes of some ids."""
    return ReferenceEngine(checkpoint, 1).step([Row(0, PROBE, "all")])


# --- the steps ---


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The clone that the tutorial works in, with its text."""
    directory = tmp_path_factory.mktemp("gpt-2")
    (directory / "data").mkdir()
    for name in ("friends.txt", "data/friends.txt"):
        (directory / name).write_text(FRIENDS, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def store(transformers, golden, tmp_path_factory):
    """OpenAI's store with the stand-in: the root of its files, and its address."""
    import torch

    made, root = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("store")
    torch.manual_seed(0)
    shape = {"vocab_size": 320, "n_positions": 1024, "n_embd": 128, "n_layer": 2, "n_head": 2}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)).save_pretrained(made)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(golden / "hf-safetensors" / name, made)
    gpt2kit.convert(made, root / "models" / "355M", to="openai")
    (root / "models" / "355M" / "model.ckpt.meta").write_bytes(b"\n\x04meta")  # nobody reads it
    handler = partial(type("Silent", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}), directory=root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def model(here, store):
    """python3 download_model.py 345M"""
    root, address = store
    files = [(name, (root / "models" / "355M" / name).read_bytes()) for name in FILES]
    known = tuple(KnownFile(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in files)
    with chdir(here):
        release = KnownModel("355M", "maker/medium", ("345M",), files=known)
        assert download_model(["345M"], catalogue=[release], endpoint=address) == 0
    return here / "models" / "345M"


@pytest.fixture(scope="module")
def encoded(here, model):
    """PYTHONPATH=src ./encode.py data/friends.txt data/friends.txt.npz"""
    return legacy(here, "encode.py", "data/friends.txt", "data/friends.txt.npz")


@pytest.fixture(scope="module")
def trained(here, encoded):
    """PYTHONPATH=src ./train.py --dataset data/friends.txt.npz --model_name 345M --run_name friends; then Ctrl-C"""
    return train_until(here, 12)


@pytest.fixture(scope="module")
def trained_on(here, trained):
    """The same line again."""
    return train_until(here, steps(trained)[-1] + 4)


@pytest.fixture(scope="module")
def notebook(here, model):
    """The tutorial's second way, in a notebook with gpt-2-simple."""
    return run(here, "-c", FINETUNE_CELLS)


@pytest.fixture(scope="module")
def newest(trained, trained_on):
    """The checkpoint that the tutorial renames: model-4000 there."""
    return f"checkpoint/friends/model-{steps(trained_on)[-1]}"


# --- what the tutorial says of them ---


def test_download_the_345m_model(model, store):
    assert_untouched(model, store)


def test_encode_the_text_beforehand_for_speed(here, encoded, transformers, golden):
    assert encoded.splitlines() == ["Reading files", "Writing data/friends.txt.npz"]
    chunks = np.load(here / "data" / "friends.txt.npz")
    theirs = transformers.GPT2Tokenizer.from_pretrained(golden / "hf-safetensors")
    # Behind a text of less than 50,000 characters encode.py put the end token, spelt as text.
    words = theirs(FRIENDS + "<|endoftext|>", split_special_tokens=True)["input_ids"]
    assert list(chunks) == ["arr_0"]
    assert chunks["arr_0"].tolist() == words


def test_finetune(trained):
    lines = trained.splitlines()
    assert lines[0] == "Loading checkpoint models/345M/model.ckpt"
    assert lines[1] == "Loading dataset..."
    assert re.fullmatch(r"dataset has \d+ tokens", lines[2])
    assert lines[3] == "Training..."
    assert steps(trained)[:12] == list(range(1, 13))


def test_samples_and_checkpoints_come_on_the_way(here, trained):
    assert "Generating samples...\n" in trained
    assert "Saving checkpoint/friends/model-10\n" in trained
    text = (here / "samples" / "friends" / "samples-5").read_text("utf-8")
    assert text.startswith("======== SAMPLE 1 ========\n")
    assert text in trained


def test_stop_it_with_ctrl_c(here, trained, trained_on):
    for printed in (trained, trained_on):
        assert "\ninterrupted\n" in printed
        assert printed.endswith(f"\nSaving checkpoint/friends/model-{steps(printed)[-1]}\n")
    assert (here / "checkpoint" / "friends" / "counter").read_text() == f"{steps(trained_on)[-1]}\n"


def test_the_same_run_name_goes_on(trained, trained_on):
    last = steps(trained)[-1]
    assert trained_on.startswith(f"Loading checkpoint checkpoint/friends/model-{last}\n")
    assert steps(trained_on)[0] == last + 1


def test_write_with_what_was_trained_without_renaming_anything(here, newest, store):
    for name in ("friends", newest):
        printed = legacy(
            *(here, "generate_unconditional_samples.py", "--model_name", name, "--top_k", "40"),
            *("--temperature", "0.9", "--nsamples", "2", "--length", "20"),
        )
        assert [line for line in printed.splitlines() if " SAMPLE " in line] == [SAMPLE.format(1), SAMPLE.format(2)]
    assert_untouched(here / "models" / "345M", store)


def test_type_a_beginning_and_the_result_appears(here, newest):
    printed = legacy(
        *(here, "interactive_conditional_samples.py", "--model_name", "friends", "--top_k", "40"),
        *("--temperature", "0.9", "--length", "20"),
        typed=b"Rachel loves Andy\n\n",
    )
    first, _, rest = printed.partition(SAMPLE.format(1))
    assert first.strip() == "Model prompt >>>"
    assert rest.partition("=" * 80)[0].strip()
    assert "Prompt should not be empty!" in rest


def test_the_second_way_trains_in_a_notebook(here, notebook):
    lines = notebook.splitlines()
    start = lines.index("Loading checkpoint models/345M/model.ckpt")
    assert lines[start + 1] == "Loading dataset..."
    assert steps(notebook) == [2, 4, 6]
    assert "Saving checkpoint/run1/model-3\n" in notebook
    assert "Saving checkpoint/run1/model-6\n" in notebook
    assert (here / "samples" / "run1" / "samples-4").read_text("utf-8").startswith("======== SAMPLE 1 ========\n")


def test_the_second_way_writes_in_a_new_session(here, notebook):
    printed = run(here, "-c", GENERATE_CELLS)
    assert printed.startswith("Loading checkpoint checkpoint/run1/model-6\n")
    whole, cut = (printed.split("=" * 20 + "\n") for printed in printed.partition("\n")[2].split("CELL\n"))
    assert len(whole) == len(cut) == 6
    assert all(text.startswith("Rachel: I love") for text in whole[:5])
    for text in cut[:5]:  # to the end of its line, without the prefix; where no line ends, whole
        assert "\n" not in text.removesuffix("\n")


@pytest.mark.parametrize("settings", ["hparams.json", "hparams_convert.json"])
def test_convert_for_the_web_demo(here, newest, transformers, settings):
    """hparams_convert.json: the copy into which the tutorial has to write four more keys; the original does as well."""
    import torch

    home = here / "models" / "345M"
    more = {"vocab_size": 320, "n_positions": 1024, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02}
    hparams = json.loads((home / "hparams.json").read_text("utf-8"))
    (home / "hparams_convert.json").write_text(json.dumps({**hparams, **more}), encoding="utf-8")
    output = f"output_for_{settings}"
    printed = legacy(here, "convert_gpt2_checkpoint", newest, output, f"models/345M/{settings}")
    assert printed.splitlines()[-2:] == [
        f"Save PyTorch model to {output}/pytorch_model.bin",
        f"Save configuration file to {output}/config.json",
    ]
    network = transformers.GPT2LMHeadModel.from_pretrained(here / output).eval()
    with chdir(here), torch.inference_mode():
        ours = logits(gpt2kit.open_checkpoint(newest))
        np.testing.assert_allclose(network(torch.tensor([PROBE])).logits[0].numpy(), ours, atol=1e-4)


def test_the_web_demos_file_opens_by_whatever_name(here, newest):
    """mv pytorch_model.bin gpt2-pytorch_model.bin"""
    legacy(here, "convert_gpt2_checkpoint", newest, "demo", "models/345M/hparams.json")
    alone = here / "web" / "gpt2-pytorch_model.bin"
    alone.parent.mkdir()
    shutil.move(here / "demo" / "pytorch_model.bin", alone)
    with chdir(here), pytest.warns(UserWarning, match="heads"):
        np.testing.assert_array_equal(logits(gpt2kit.open_checkpoint(alone)), logits(gpt2kit.open_checkpoint(newest)))
