"""What the tests share: where the files of other programs lie, and what those programs made of them."""

import os
import sys
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# Another build of the native engine may be tested, such as one that watches itself: native/sanitize.sh.
if path := os.environ.get("GPT2KIT_NATIVE"):
    spec = spec_from_file_location("gpt2kit._native", path)
    sys.modules["gpt2kit._native"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["gpt2kit._native"])

from gpt2kit.formats import huggingface

# Models this small gain nothing from more threads, and lose much where something else runs. torch asks when it loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How long one example takes says more about the machine than about the code.
hypothesis.settings.register_profile("gpt2kit", deadline=None)
hypothesis.settings.load_profile("gpt2kit")

CHECKOUT = Path(__file__).parents[1]
GOLDEN = CHECKOUT / "tests" / "golden"
EXAMPLES = {  # model directory: where its expected values are, and how their names begin
    "hf-safetensors": ("hf-safetensors", ""),
    "hf-safetensors/sharded": ("hf-safetensors", ""),
    "hf-safetensors/base_model_noprefix": ("hf-safetensors", ""),
    "hf-v5": ("hf-v5", ""),
    "hf-halfprec/fp16": ("hf-halfprec", "fp16_"),
    "hf-halfprec/bf16": ("hf-halfprec", "bf16_"),
    "hf-variants/untied": ("hf-variants/untied", ""),
    "hf-variants/n_inner": ("hf-variants/n_inner", ""),
    "hf-variants/gelu_exact_eps": ("hf-variants/gelu_exact_eps", ""),
    "hf-variants/inv_layer_scale": ("hf-variants/inv_layer_scale", ""),
}
SCALED_BY_LAYER = "hf-variants/inv_layer_scale"


@dataclass(frozen=True)
class Example:
    """A model directory, and what another program computed with it."""

    directory: Path
    logits: list[tuple[np.ndarray, np.ndarray]]
    """Pairs of token ids (rows, length) and logits (rows, length, vocabulary)."""
    greedy_prompt: list[int]
    greedy_tokens: list[int]
    """The prompt and the likeliest continuation."""


@pytest.fixture(scope="session")
def shared():
    """Files of other programs that are too large or too foreign for the repository; they lie beside the checkout."""
    path = CHECKOUT.parent / "shared"
    if path.is_dir():
        return path
    refuse = pytest.fail if os.environ.get("GPT2KIT_REQUIRE_SHARED") == "1" else pytest.skip
    refuse(f"no directory {path.name} beside the checkout")


@pytest.fixture(scope="session")
def golden():
    """Tiny models and numbers made by other programs; golden/README.md says by which."""
    return GOLDEN


@pytest.fixture(scope="session")
def transformers():
    """Hugging Face's library, the judge of what we read and write; kept off the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        import transformers

        yield transformers


@pytest.fixture(scope="session")
def tiny_checkpoint():
    """A checkpoint of random weights large enough to tell a right logit from a wrong one; its window is 56."""
    return huggingface.read(GOLDEN / "hf-safetensors")


@pytest.fixture(scope="session", params=EXAMPLES)
def example(request):
    """Every golden model in turn."""
    place, prefix = EXAMPLES[request.param]
    directory, stored = GOLDEN / request.param, np.load(GOLDEN / place / "expected.npz")
    prompt = stored[f"{prefix}greedy_prompt"].tolist()
    if request.param == SCALED_BY_LAYER:
        # The stored logits are those without the option (golden/README.md); transformers 5 with eager attention has it.
        return worked_by_transformers(
            request.getfixturevalue("transformers"), directory, stored["tokens_0"], prompt, stored["greedy_tokens"].size
        )
    numbers = [n for n in range(3) if f"{prefix}tokens_{n}" in stored]
    logits = [(stored[f"{prefix}tokens_{n}"], stored[f"{prefix}logits_{n}"]) for n in numbers]
    return Example(directory, logits, prompt, stored[f"{prefix}greedy_tokens"][0].tolist())


def worked_by_transformers(transformers, directory, ids_BT, prompt, length):
    import torch

    model = transformers.GPT2LMHeadModel.from_pretrained(directory, attn_implementation="eager").eval()
    with torch.inference_mode():
        logits_BTV = model(torch.tensor(ids_BT)).logits.numpy()
        tokens = list(prompt)
        while len(tokens) < length:
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return Example(directory, [(ids_BT, logits_BTV)], prompt, tokens)
