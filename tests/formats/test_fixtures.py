"""Every checkpoint that the reference programs wrote, against what those programs computed with it."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from gpt2kit.generate.engine import Row
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.model.weights import to_network
from gpt2kit.resolve import open_checkpoint
from gpt2kit.tokenizer.open import open_tokenizer

# Checkpoint: the folder of its expected values, and how their names begin.
FIXTURES = {
    "onnx/optimum_no_past": ("onnx", ""),
    "onnx/optimum_with_past/model.onnx": ("onnx", ""),
    "openai-tiny": ("openai-tiny", ""),
    "openai-tiny/model.ckpt": ("openai-tiny", ""),
    "openai-tiny/model.ckpt.index": ("openai-tiny", ""),
    "openai-tiny/model.ckpt.data-00000-of-00001": ("openai-tiny", ""),
    "openai-deep": ("openai-deep", ""),
    "openai-fullvocab": ("openai-fullvocab", ""),
    "nshepperd/checkpoint/run1": ("nshepperd", ""),
    "nshepperd/checkpoint/run1/model-4": ("nshepperd", ""),
    "gpt2simple/checkpoint/run1": ("gpt2simple", ""),
    "hf-2019-bin/gpt2-pytorch_model.bin": ("hf-2019-bin", ""),
    "hf-2019-bin": ("hf-2019-bin", ""),
    "hf-2019-bin/gbw_names": ("hf-2019-bin", ""),
    "hf-2019-bin/lmhead_decoder": ("hf-2019-bin", ""),
    "hf-bin": ("hf-bin", ""),
    "hf-bin/pytorch_model.bin": ("hf-bin", ""),
    "hf-bin/sharded": ("hf-bin", ""),
    "hf-bin/base_model_noprefix": ("hf-bin", ""),
    "hf-bin-2022": ("hf-bin-2022", ""),
    "hf-halfprec/fp16": ("hf-halfprec", "fp16_"),
    "hf-halfprec/bf16": ("hf-halfprec", "bf16_"),
    "hf-halfprec/fp16_bin": ("hf-halfprec", "fp16_"),
    "hf-halfprec/bf16_bin": ("hf-halfprec", "bf16_"),
    "hf-safetensors": ("hf-safetensors", ""),
    "hf-safetensors/sharded": ("hf-safetensors", ""),
    "hf-safetensors/base_model_noprefix": ("hf-safetensors", ""),
    "hf-tf-h5": ("hf-tf-h5", ""),
    "hf-tf-h5/tf_model.h5": ("hf-tf-h5", ""),
    "hf-tf-h5/sharded": ("hf-tf-h5", ""),
    "hf-tf-h5/base_model": ("hf-tf-h5", ""),
    "hf-tf-h5-old": ("hf-tf-h5-old", ""),
    "hf-v5": ("hf-v5", ""),
    "hf-variants/untied": ("hf-variants/untied", ""),
    "hf-variants/n_inner": ("hf-variants/n_inner", ""),
    "hf-variants/gelu_exact_eps": ("hf-variants/gelu_exact_eps", ""),
    "nanogpt/compiled_prefix": ("nanogpt", ""),
    "nanogpt/compiled_prefix/ckpt.pt": ("nanogpt", ""),
    "nanogpt/nobias": ("nanogpt", "nobias_"),
    "gpt2ml": ("gpt2ml", ""),
    "gpt2ml/model.ckpt-100000": ("gpt2ml", ""),
    "gpt2ml/model.ckpt-100000.index": ("gpt2ml", ""),
}
TOKENIZERS = {  # folder: whether its encodings.json takes <|endoftext|> in a text for the token
    "openai-tiny": False,
    "openai-deep": False,
    "openai-fullvocab": False,
    "hf-bin": True,
    "hf-safetensors": True,
}


@dataclass(frozen=True)
class Fixture:
    """A checkpoint, and what the program that wrote it computed."""

    checkpoint: object
    expected: dict

    def batches(self):
        """Pairs of token ids and logits of all their positions, perhaps of some columns only."""
        for number in range(4):
            if f"tokens_{number}" in self.expected:
                columns = self.expected.get(f"cols_{number}", slice(None))
                stored = "logits_cols" if f"cols_{number}" in self.expected else "logits"
                yield self.expected[f"tokens_{number}"], columns, self.expected[f"{stored}_{number}"]


@pytest.fixture(params=FIXTURES)
def fixture(request, shared):
    folder, prefix = FIXTURES[request.param]
    stored = np.load(shared / "fixtures" / folder / "expected.npz")
    expected = {name.removeprefix(prefix): stored[name] for name in stored.files if name.startswith(prefix)}
    return Fixture(open_checkpoint(shared / "fixtures" / request.param), expected)


def greedy(logits_of, prompt, length):
    tokens = list(prompt)
    while len(tokens) < length:
        tokens.append(int(logits_of(tokens)[-1].argmax()))
    return tokens


def reference_logits(checkpoint):
    engine = ReferenceEngine(checkpoint, slots=1)

    def logits_of(ids):
        engine.truncate(0, 0)
        return engine.step([Row(0, ids, "all")])

    return logits_of


def network_logits(checkpoint):
    network = to_network(checkpoint.config, checkpoint.tensors).eval()

    @torch.inference_mode()
    def logits_of(ids):
        return network(torch.tensor([ids]))[0].numpy()

    return logits_of


@pytest.mark.slow
@pytest.mark.parametrize("logits_by", [reference_logits, network_logits])
def test_logits_and_greedy_tokens_are_those_of_the_program_that_wrote_it(fixture, logits_by):
    logits_of, compared = logits_by(fixture.checkpoint), 0
    for ids_BT, columns, expected_BTC in fixture.batches():
        for ids, expected_TC in zip(ids_BT.tolist(), expected_BTC, strict=True):
            np.testing.assert_allclose(logits_of(ids)[:, columns], expected_TC, atol=1e-4, rtol=0)
            compared += 1
    assert compared
    if "greedy_tokens" in fixture.expected:
        (tokens,) = fixture.expected["greedy_tokens"].tolist()
        assert greedy(logits_of, fixture.expected["greedy_prompt"].tolist(), len(tokens)) == tokens


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_tokenizer_encodes_as_the_reference_program_did(shared, name):
    checkpoint = open_checkpoint(shared / "fixtures" / name)
    tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
    texts = json.loads((shared / "fixtures" / name / "encodings.json").read_text("utf-8"))
    assert texts
    for text in texts:
        ids = tokenizer.encode(text["text"], special=TOKENIZERS[name])
        assert (ids, tokenizer.decode(ids)) == (text["ids"], text["text"])
