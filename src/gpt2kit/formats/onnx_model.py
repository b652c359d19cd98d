"""The format "onnx": a directory with a GPT-2 as onnxruntime runs it, and config.json and tokenizer files beside it.

What optimum exports and transformers.js takes: model.onnx, in earlier versions decoder_model.onnx and others of its
kind, which hold the same weights. The nodes are written (onnx_graph.py), and never read: config.json says what the
model computes. Weights have the names of PyTorch's modules with anything before them, matrices as [in, out]. Of a tied
head and embedding there may be one, under either name; a head may also stand turned, [D, V], under a name that says
nothing (onnx::MatMul_317).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gpt2kit.checkpoint import FLOATS, Checkpoint, LazyTensor
from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.formats.huggingface import checkpoint_of, write_surroundings
from gpt2kit.formats.onnx_file import open_tensors, write_model
from gpt2kit.formats.onnx_graph import gpt2_graph, require_onnx
from gpt2kit.formats.state_dict import HEAD, stored_tensors
from gpt2kit.progress import Report

SUFFIX = ".onnx"
FILES = ("model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx", "decoder_model_merged.onnx")
NAME = re.compile(
    r"(?:.*[./])?((?:wte|wpe)\.weight|lm_head\.weight|(?:ln_f|h\.\d{1,6}\.(?:ln_[12]|attn\.c_attn|attn\.c_proj|mlp\.c_fc"
    r"|mlp\.c_proj))\.(?:weight|bias))"
)
CLASSIFIER = re.compile(r"(?:.*\.)?(?:score|classifier|qa_outputs)\.\w+")
QUANTISED = "_quantized"  # how onnxruntime ends the names of weights that it has rounded


def sniff(path: Path) -> bool:
    """Whether `path` is such a directory, or an ONNX file."""
    if path.is_file():
        return path.suffix == SUFFIX
    return any((path / name).is_file() for name in FILES)


def read(path: Path, *, step: int | None = None, model_dir: Path | None = None) -> Checkpoint:
    """The checkpoint at `path`: a directory, or a single .onnx file with its config.json beside it.

    Args:
        path: where the weights are.
        step: recorded in the result; the layout itself knows no steps.
        model_dir: where config.json and the tokenizer files are, if not beside the weights.
    """
    file = path if path.is_file() else next((path / name for name in FILES if (path / name).is_file()), None)
    if file is None:
        raise FormatError(path, None, f"holds no model; expected {' or '.join(FILES)}")
    home = model_dir or file.parent
    return checkpoint_of(_canonical(open_tensors(file), file), home, path, step)


def write(checkpoint: Checkpoint, path: Path, report: Report) -> None:
    """Write the directory `path`; the model comes last, so a directory with a model is whole."""
    require_onnx("writing an ONNX model")
    tensors = stored_tensors(checkpoint.tensors)
    model, graph = gpt2_graph(checkpoint.config, {name for name, each in tensors.items() if each.dtype != "float32"})
    write_surroundings(checkpoint, path)
    write_model(model, graph, tensors, path / FILES[0], report)


def _canonical(found: Mapping[str, LazyTensor], file: Path) -> dict[str, LazyTensor]:
    """The weights by canonical name, the head too. Raises WeightMismatch."""
    tensors: dict[str, LazyTensor] = {}
    for stored_name, tensor in found.items():
        if stored_name.endswith(QUANTISED):
            raise WeightMismatch(
                f"{file}: {stored_name:.200} is rounded to whole numbers; name the model in full precision"
            )
        if CLASSIFIER.fullmatch(stored_name):
            raise WeightMismatch(f"{file}: {stored_name:.200} is the head of a classifier; expected a language model")
        if not (match := NAME.fullmatch(stored_name)):
            continue
        if match[1] in tensors:
            raise WeightMismatch(f"{file}: {stored_name:.200} is a second {match[1]}; which of them counts is not told")
        tensors[match[1]] = replace(tensor, name=match[1])
    if "wte.weight" not in tensors and HEAD in tensors:
        tensors["wte.weight"] = replace(tensors.pop(HEAD), name="wte.weight")
    return tensors | _nameless_head(found, tensors)


def _nameless_head(found: Mapping[str, LazyTensor], named: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The head that exporters turned to [D, V] and named anew, if there is one."""
    if HEAD in named or "wte.weight" not in named:
        return {}
    turned = [
        tensor
        for name, tensor in found.items()
        if tensor.shape == named["wte.weight"].shape[::-1] and tensor.dtype in FLOATS and not NAME.fullmatch(name)
    ]
    if len(turned) != 1:
        return {}
    (head,) = turned
    return {HEAD: replace(head, name=HEAD, shape=head.shape[::-1], load=lambda: head.read().T)}
