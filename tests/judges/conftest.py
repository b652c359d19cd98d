"""Other people's programs, asked what they make of the models that we write and of the server that we run.

They have environments of their own below .judges/, built once and again when their pins change: 2024 takes two minutes
and 2.5 GB, the clients of the server 1.5 GB, optimum 1.3 GB. Each question is a run of one of the programs/.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

PROGRAMS = Path(__file__).parent / "programs"
ENVIRONMENTS = Path(__file__).parents[2] / ".judges"
PYTHON = "python3.11"  # the newest that TensorFlow 2.15 runs on
PINS = (
    *("tensorflow-cpu==2.15.1", "transformers==4.38.2", "torch==2.13.0", "numpy==1.26.4", "h5py==3.16.0"),
    *("tokenizers==0.15.2", "safetensors==0.8.0", "protobuf==4.25.9", "toposort==1.10"),
)
# It asks for the package "tensorflow", the same program under another name. Its src/model.py is openai/gpt-2's.
WITHOUT_DEPENDENCIES = "gpt-2-simple==0.8.1"
# The newest that agree with each other. Versions 1.82.7 and 1.82.8 of litellm were malicious: never loosen its pin.
CLIENTS = {
    "clients": ("openai==3.54.0", "langchain-openai==1.7.3", "llm==0.36"),
    "clients-2": ("openai==2.54.0", "litellm==1.106.2"),
    "lm-eval": ("lm-eval[api]==0.4.13",),
}
OPTIMUM = (
    *("optimum-onnx==0.1.0", "optimum==2.1.0", "transformers==4.57.6", "torch==2.13.0", "onnx==1.23.2"),
    *("onnxruntime==1.32.0", "numpy==2.4.6", "tokenizers==0.22.1", "huggingface_hub==0.36.0"),
)
# Compiled when it is installed, without AMX: gcc 12 compiles that wrongly (its issue 20824).
LLAMA = ("llama-cpp-python==0.3.36",)
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Answer:
    """What a program made of a model."""

    logits: np.ndarray
    greedy: list[int]
    said: str
    """All that it printed."""
    more: dict[str, np.ndarray]
    """What else it tells, by names of its own."""


@dataclass(frozen=True)
class Model:
    """A model that others made, and what others computed with it."""

    directory: Path
    ids: np.ndarray
    logits: np.ndarray
    prompt: list[int]
    greedy: list[int]
    """The prompt and its likeliest continuation."""

    def agrees(self, answer):
        np.testing.assert_allclose(answer.logits, self.logits, atol=TOLERANCE, rtol=0)
        assert answer.greedy == self.greedy


def environment(name, pins, without_dependencies=(), **variables):
    """The programs of the environment `name`, built where it is missing or has other pins."""
    directory = ENVIRONMENTS / name
    installed, wanted = directory / "installed.txt", "\n".join([*pins, *without_dependencies])
    if installed.is_file() and installed.read_text("utf-8") == wanted:
        return directory / "bin"
    if shutil.which(PYTHON) is None:
        pytest.fail(f"the judges need {PYTHON}")
    shutil.rmtree(directory, ignore_errors=True)
    subprocess.run([PYTHON, "-m", "venv", directory], check=True)
    install = [directory / "bin" / "python", "-m", "pip", "install", "-q"]
    subprocess.run([*install, *pins], check=True, env={**os.environ, **variables})
    if without_dependencies:
        subprocess.run([*install, "--no-deps", *without_dependencies], check=True)
    installed.write_text(wanted, "utf-8")
    return directory / "bin"


@pytest.fixture(scope="session")
def programs_of_2024():
    """The interpreter of an environment with TensorFlow 2.15, transformers 4.38 and gpt-2-simple."""
    return environment("2024", PINS, [WITHOUT_DEPENDENCIES]) / "python"


@pytest.fixture(scope="session")
def client_programs():
    """client_programs(name): the directory of the programs of one of the environments in CLIENTS."""
    return lambda name: environment(name, CLIENTS[name])


@pytest.fixture(scope="session")
def consult(client_programs, clean_environment):
    """consult(environment, program, question, address, **fields): what one of the programs/ says, out of its JSON."""

    def consulted(name, program, question, address, **fields):
        done = subprocess.run(
            [client_programs(name) / "python", PROGRAMS / program, question, address, json.dumps(fields)],
            env=clean_environment,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return consulted


@pytest.fixture(scope="session")
def clean_environment():
    """This process's variables without the keys, addresses and proxies that clients pick up by themselves."""
    foreign = ("OPENAI_", "LITELLM_", "LANGCHAIN_", "LANGSMITH_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}
    return {**kept, "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@pytest.fixture(scope="session")
def serve():
    """serve(model, *options): the address of a new server, which ends with the tests; equal ones are shared."""
    servers = {}

    def served(model, *options):
        wanted = (str(model), *options)
        if wanted not in servers:
            command = [sys.executable, "-m", "gpt2kit", "serve", *wanted, "--port", "0"]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
            servers[wanted] = process, listening(process)
        return servers[wanted][1]

    yield served
    for process, _ in servers.values():
        process.kill()
        process.wait()


def listening(process):
    """Where a server listens, out of what it says until its model is read."""
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("gpt2: ready"):
            threading.Thread(target=process.stderr.read, daemon=True).start()  # so that its pipe never fills
            return re.search(r"serving .* at (http://\S+?)/?\s", said)[1]
    pytest.fail(said)


@pytest.fixture
def ask(programs_of_2024, tmp_path):
    """ask(program, directory, model): the Answer of one of the programs/ about the model in `directory`."""
    return lambda *asked: answer_of(programs_of_2024, tmp_path, *asked)


@pytest.fixture
def ask_llama(llama_python, tmp_path):
    """The same, by llama.cpp, about the model in a file."""
    return lambda *asked: answer_of(llama_python, tmp_path, *asked)


@pytest.fixture
def ask_optimum(tmp_path):
    """The same, by optimum and onnxruntime, about the model in a directory."""
    return lambda *asked: answer_of(environment("optimum", OPTIMUM) / "python", tmp_path, *asked)


@pytest.fixture
def llama_program(llama_python):
    """The beginning of a call of llama.cpp's program here."""
    return llama_python, PROGRAMS / "llama_model.py"


@pytest.fixture(scope="session")
def llama_python():
    """The interpreter of an environment with llama.cpp."""
    return environment("llama", LLAMA, CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF") / "python"


def answer_of(python, place, program, directory, model):
    question, answer = place / "question.npz", place / "answer.npz"
    np.savez(question, ids=model.ids, prompt=model.prompt, length=len(model.greedy))
    done = subprocess.run(
        [python, PROGRAMS / program, directory, question, answer],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    told = dict(np.load(answer))
    return Answer(told.pop("logits"), told.pop("greedy").tolist(), done.stdout, told)


@pytest.fixture(scope="session")
def wide(transformers, golden, tmp_path_factory):
    """A model with the heads of a released one, 64 wide, and weights large enough to tell a right logit."""
    import torch

    directory = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    shape = {"vocab_size": 320, "n_positions": 96, "n_embd": 192, "n_layer": 3, "n_head": 3}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, initializer_range=0.2)).save_pretrained(directory)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(golden / "hf-safetensors" / name, directory)
    answer = transformers_on(transformers, directory, ids := [list(range(1, 91)), list(range(230, 320))], [5, 6, 7], 40)
    return Model(directory, np.array(ids), answer.logits, [5, 6, 7], answer.greedy)


@pytest.fixture(params=["hf-safetensors", "openai-tiny", "wide"])
def model(request):
    """Each model in turn."""
    if request.param == "wide":
        return request.getfixturevalue("wide")
    if request.param == "openai-tiny":
        directory = request.getfixturevalue("shared") / "fixtures" / request.param
    else:
        directory = request.getfixturevalue("golden") / request.param
    return request.getfixturevalue("model_in")(directory)


@pytest.fixture(scope="session")
def model_in():
    """model_in(directory): the model that lies there beside its expected.npz."""

    def found(directory):
        stored = np.load(directory / "expected.npz")
        greedy = (stored[f"greedy_{part}"].ravel().tolist() for part in ("prompt", "tokens"))
        return Model(directory, stored["tokens_0"], stored["logits_0"], *greedy)

    return found


@pytest.fixture(scope="session")
def ask_transformers(transformers):
    """ask_transformers(directory, model): the Answer of the installed transformers, in float32."""
    return lambda directory, model: transformers_on(transformers, directory, model.ids, model.prompt, len(model.greedy))


def transformers_on(transformers, directory, ids, prompt, length):
    import torch

    network, told = transformers.GPT2LMHeadModel.from_pretrained(
        directory, output_loading_info=True, dtype=torch.float32
    )
    network.eval()
    greedy = list(prompt)
    with torch.inference_mode():
        logits = network(torch.as_tensor(np.asarray(ids))).logits.numpy()
        while len(greedy) < length:
            greedy.append(int(network(torch.tensor([greedy])).logits[0, -1].argmax()))
    return Answer(logits, greedy, "", {key: np.array(sorted(map(str, names))) for key, names in told.items()})
