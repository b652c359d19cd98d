"""The second tutorial with today's lines: fetch "gpt2" by its name on the hub, keep a copy, load it, write 100 tokens.

Its program was TFGPT2LMHeadModel.from_pretrained("gpt2"), save_pretrained("./gpt2") and, behind a web page,
model.generate(input_ids, max_length=100). What comes out is held against that very call, on the same files.
"""

import hashlib
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import gpt2kit
from gpt2kit import SamplingConfig, StopConfig

MAX_LENGTH = 100  # the tutorial's: prompt and new tokens together
PROMPTS = ["Once upon a time", "I love you", "你好，世界"]
ENDS_EARLY = "你好，世界"
LARGE = (".safetensors", ".h5", ".bin")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def released(transformers, golden, tmp_path_factory):
    """What stands on the hub in place of the released model: 320 tokens, a window that holds the tutorial's 100."""
    import torch

    directory = tmp_path_factory.mktemp("released")
    torch.manual_seed(24)
    shape = {"vocab_size": 320, "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4}
    ends = {"bos_token_id": 319, "eos_token_id": 319}
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **ends, initializer_range=0.2))
    network.save_pretrained(directory)
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(golden / "hf-safetensors" / name, directory)
    return directory


def git_name_of(content):
    """What the hub calls a small file: the name that git gives to its content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture(scope="module")
def hub(released):
    """A server that answers as the hub does: small files itself, large ones by way of another address."""
    files = {path.name: path.read_bytes() for path in released.iterdir()}
    place = "/openai-community/gpt2/resolve/main/"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = files.get(self.path.rpartition("/")[2])
            if content is None or not self.path.startswith((place, "/large/")):
                return self.answer(404, b"Entry not found")
            digest = hashlib.sha256(content).hexdigest()
            if self.path.endswith(LARGE) and self.path.startswith(place):
                where = self.path.replace(place, "/large/")
                return self.answer(302, b"", Location=where, X_Linked_Etag=f'"{digest}"', X_Linked_Size=len(content))
            self.answer(200, content, ETag=f'"{git_name_of(content)}"')

        def answer(self, status, body, **headers):
            self.send_response(status)
            for name, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def fetched(hub, tmp_path_factory):
    """The tutorial's directory, after the line that fetches the model."""
    here = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.delenv("HF_TOKEN", raising=False)
        gpt2kit.download("gpt2", endpoint=hub)
    return here


@pytest.fixture
def here(fetched, monkeypatch):
    """We are in the tutorial's directory."""
    monkeypatch.chdir(fetched)
    return fetched


@pytest.fixture(scope="module")
def their_text(transformers, released):
    """their_text(prompt): what the tutorial's program answers; its length in tokens."""
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(released)
    network = transformers.GPT2LMHeadModel.from_pretrained(released).eval()

    def text(prompt):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        output = network.generate(
            ids, max_length=MAX_LENGTH, num_return_sequences=1, do_sample=False, pad_token_id=tokenizer.eos_token_id
        )
        return tokenizer.decode(output[0], skip_special_tokens=True), output.shape[1]

    return text


def our_text(place, prompt):
    """The same by gpt2kit: prompt and new tokens are 100 together, and the end token ends it earlier."""
    with gpt2kit.load(place) as model:
        new = MAX_LENGTH - len(model.tokenizer.encode(prompt))
        [sample] = model.generate(prompt, sampling=SamplingConfig(temperature=0), stop=StopConfig(max_new_tokens=new))
    return prompt + sample.text


def test_it_is_fetched_by_its_name_on_the_hub(here, released):
    fetched = here / "models" / "gpt2"
    for name in ("config.json", "model.safetensors", "vocab.json", "merges.txt"):
        assert (fetched / name).read_bytes() == (released / name).read_bytes()


@pytest.mark.parametrize("to", ["safetensors", "h5"])
def test_it_is_kept_in_a_directory_of_our_own_and_loaded_from_there(here, their_text, tmp_path, to):
    """h5: what the tutorial's save_pretrained wrote."""
    if to == "h5":
        pytest.importorskip("h5py")
    kept = tmp_path / "gpt2"
    assert gpt2kit.convert("gpt2", kept, to=to).difference.bit_equal
    assert (kept / {"safetensors": "model.safetensors", "h5": "tf_model.h5"}[to]).is_file()
    for prompt in PROMPTS:
        assert our_text(kept, prompt) == their_text(prompt)[0]


def test_100_tokens_counts_the_prompt_too(here, their_text):
    for prompt in PROMPTS[:2]:
        text, tokens = their_text(prompt)
        assert tokens == MAX_LENGTH
        assert our_text("gpt2", prompt) == text


def test_the_end_token_ends_a_text_earlier(here, their_text):
    text, tokens = their_text(ENDS_EARLY)
    assert tokens < MAX_LENGTH
    assert our_text("gpt2", ENDS_EARLY) == text


def test_the_command_line_writes_the_same(here, their_text):
    """11 tokens of prompt and 89 new ones."""
    words = ["generate", "--prefix", "Once upon a time", "--include_prefix", "true", "--model", "gpt2"]
    words += ["--temperature", "0", "--length", "89"]
    done = subprocess.run([sys.executable, "-m", "gpt2kit", *words], stdout=subprocess.PIPE, check=True, timeout=60)
    assert done.stdout.decode() == their_text("Once upon a time")[0] + "\n"
