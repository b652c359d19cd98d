"""imcaspar's GPT2-ML, the Chinese model of the Grover lineage: a TensorFlow 1 bundle. It is read, never written.

    model.ckpt-220000.index, .data-00000-of-00001, checkpoint     as OpenAI's directory has them
    config.json, or mega.json, large.json, base.json               its settings (gpt2_ml_config.py)
    vocab.txt, or clue-vocab.txt, bert-base-chinese-vocab.txt      its vocabulary (tokenizer/wordpiece.py)
What is missing beside the bundle is looked for in configs/ and tokenization/ where models/NAME/ lies in a clone of its
repository. Two models were released: of 8021 rows of word_embed, with clue-vocab.txt; of 21130 rows, with
bert-base-chinese-vocab.txt and its 21128 tokens. Settings in circulation say 21128 of the latter, and mega.json, as it
is today, 8021: then the rows of the tensor count.

Variables, float32, and the canonical tensors made of them:
    newslm/embeddings/word_embed [V, D]                            wte.weight
    newslm/embeddings/pos_embed [window, D]                        wpe.weight
    newslm/embeddings/LayerNorm_embed_norm/gamma, beta [D]         ln_e.weight, .bias
and of each layer NN, two digits from 00,
    query_layer, key_layer, value_layer/kernel [D, D], bias [D]    h.N.attn.c_attn.weight [D, 3D], .bias: side by side
    context_projection_layer/kernel [D, D], bias                   h.N.attn.c_proj.weight, .bias
    LayerNorm_mlp_ln0/gamma, beta [D]                              h.N.ln_1.weight, .bias
    intermediate/kernel [D, I], bias                               h.N.mlp.c_fc.weight, .bias
    output/kernel [I, D], bias                                     h.N.mlp.c_proj.weight, .bias
    LayerNorm_mlp_ln1/gamma, beta [D]                              h.N.ln_2.weight, .bias
Beside them global_step, and what Adafactor keeps of each: NAME/adafactor_v, _vr, _vc. Both are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpt2kit.checkpoint import FLOATS, Checkpoint, LazyTensor, check_tensors
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.formats import openai
from gpt2kit.formats.gpt2_ml_config import config_of
from gpt2kit.formats.huggingface import CONFIG
from gpt2kit.formats.shapes import config_from_shapes
from gpt2kit.formats.sorted_table import read_table
from gpt2kit.formats.tensor_bundle import index_path, open_tensors
from gpt2kit.json_object import read_object, read_small
from gpt2kit.tokenizer.wordpiece import SETTINGS as WORDPIECE_SETTINGS
from gpt2kit.tokenizer.wordpiece import VOCABULARY

SETTINGS = (CONFIG, "mega.json", "large.json", "base.json")
CLUE, BERT = "clue-vocab.txt", "bert-base-chinese-vocab.txt"
VOCABULARIES = (VOCABULARY, CLUE, BERT)
CLUE_ROWS, BERT_ROWS = 8021, 21130
MOST_SPARE_ROWS = 127  # rows without a token: of a table rounded up to 128
KINDS = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
QKV = ("query_layer", "key_layer", "value_layer")
MODULES = {
    **{part: "attn.c_attn" for part in QKV},
    "context_projection_layer": "attn.c_proj",
    "LayerNorm_mlp_ln0": "ln_1",
    "intermediate": "mlp.c_fc",
    "output": "mlp.c_proj",
    "LayerNorm_mlp_ln1": "ln_2",
}
EMBEDDINGS = {
    "newslm/embeddings/word_embed": "wte.weight",
    "newslm/embeddings/pos_embed": "wpe.weight",
    "newslm/embeddings/LayerNorm_embed_norm/gamma": "ln_e.weight",
    "newslm/embeddings/LayerNorm_embed_norm/beta": "ln_e.bias",
}
IN_LAYER = re.compile(rf"newslm/layer([0-9]{{2}}|[1-9][0-9]{{2,4}})/({'|'.join(MODULES)})/({'|'.join(KINDS)})")


def sniff(path: Path) -> bool:
    """Whether `path` is such a directory, the common beginning of a bundle's file names, or one of these files."""
    if not openai.sniff(path):
        return False
    with suppress(FormatError, OSError):  # what is damaged is told when it is read
        return any(_holds_gpt2_ml(prefix) for prefix in openai.bundles_at(path)[:1])
    return False


def read(
    path: Path, *, step: int | None = None, model_dir: Path | None = None, settings: Path | None = None
) -> Checkpoint:
    """The checkpoint at `path`.

    Args:
        path: a directory, a file of a bundle, or what the names of a bundle's files begin with (.../model.ckpt-220000).
        step: which bundle of a directory that has several; None takes the newest.
        model_dir: where the settings and the vocabulary are, if not beside the bundle.
        settings: the file of settings, if it is another one.

    Raises:
        ModelNotFound: there is no such step.
        FormatError, WeightMismatch: the files are damaged, or contradict each other.
    """
    prefix = openai.find_bundle(path, step)
    tensors = _canonical_tensors(open_tensors(prefix), index_path(prefix))
    places = [model_dir] if model_dir else _places(prefix.parent)
    config = _config(places, settings, tensors, prefix)
    files = _tokenizer_files(places, config.vocab_size)
    checkpoint = Checkpoint(config, tensors, files, str(path), openai.step_of(prefix))
    check_tensors(checkpoint)
    return checkpoint


def _holds_gpt2_ml(prefix: Path) -> bool:
    names = (key for key, _ in read_table(index_path(prefix)))
    return next((key for key in names if key.startswith((b"newslm/", b"model/"))), b"").startswith(b"newslm/")


# --- tensors ---


def _canonical_tensors(found: Mapping[str, LazyTensor], index: Path) -> dict[str, LazyTensor]:
    parts: dict[str, dict[str, LazyTensor]] = {}  # by canonical name, then by the variable's
    for name, tensor in found.items():
        if canonical := _canonical_name(name):
            if tensor.dtype not in FLOATS:
                raise FormatError(index, None, f"{name} is {tensor.dtype}; expected one of {', '.join(FLOATS)}")
            parts.setdefault(canonical, {})[name] = tensor
        elif name.startswith("newslm/") and not _canonical_name(name.rpartition("/")[0]):
            raise FormatError(index, None, f"the variable {name:.200} is none of a GPT2-ML's")
    if not parts:
        raise FormatError(index, None, f"no GPT2-ML: there is no newslm/, but {', '.join(list(found)[:3])!r:.200}")
    return {name: _joined(name, variables, index) for name, variables in parts.items()}


def _canonical_name(variable: str) -> str | None:
    if match := IN_LAYER.fullmatch(variable):
        return f"h.{int(match[1])}.{MODULES[match[2]]}.{KINDS[match[3]]}"
    return EMBEDDINGS.get(variable)


def _joined(name: str, variables: Mapping[str, LazyTensor], index: Path) -> LazyTensor:
    """One tensor of one variable; of three for attention, side by side."""
    if ".c_attn." not in name:
        (tensor,) = variables.values()
        return replace(tensor, name=name)
    three = [tensor for part in QKV for variable, tensor in variables.items() if f"/{part}/" in variable]
    first = three[0]
    if len(three) < len(QKV) or any((each.shape, each.dtype) != (first.shape, first.dtype) for each in three):
        shapes = ", ".join(f"{tensor.name} {tensor.shape} {tensor.dtype}" for tensor in three)
        raise FormatError(index, None, f"query, key and value do not fit together: {shapes}")
    shape = (*first.shape[:-1], 3 * first.shape[-1]) if first.shape else (3,)
    return LazyTensor(name, first.dtype, shape, lambda: np.concatenate([each.read() for each in three], axis=-1))


# --- what is beside them ---


def _places(home: Path) -> list[Path]:
    """Where settings and vocabularies may be, the nearest first."""
    clone = home.resolve().parent.parent  # of its repository, where home is models/NAME
    return [home, clone / "configs", clone / "tokenization"]


def _config(
    places: Sequence[Path], settings: Path | None, tensors: Mapping[str, LazyTensor], prefix: Path
) -> ModelConfig:
    """The settings of the model, and the rows that its token embedding has."""
    shaped = config_from_shapes(tensors, prefix, CONFIG, heads=1)
    for file in [settings] if settings else _found(places[:1], SETTINGS):
        return _with_rows(config_of(read_object(file), file), shaped.vocab_size, file)
    shaped = replace(shaped, architecture="gpt2-ml", activation="gelu_exact")
    for file in _found(places[1:], SETTINGS):
        with suppress(FormatError, WeightMismatch):  # somebody else's file is not this model's
            config = _with_rows(config_of(read_object(file), file), shaped.vocab_size, file)
            if replace(config, heads=1) == shaped:
                return config
    return replace(shaped, heads=config_from_shapes(tensors, prefix, CONFIG).heads)


def _with_rows(config: ModelConfig, rows: int, file: Path) -> ModelConfig:
    """The configuration with as many rows as there are, where `file` could mean these."""
    known_slip = (config.vocab_size, rows) == (CLUE_ROWS, BERT_ROWS)
    if not (known_slip or 0 <= rows - config.vocab_size <= MOST_SPARE_ROWS):
        raise WeightMismatch(
            f"{file}: vocab_size is {config.vocab_size}, but newslm/embeddings/word_embed has {rows} rows; "
            "the settings belong to another model"
        )
    return replace(config, vocab_size=rows)


def _tokenizer_files(places: Sequence[Path], rows: int) -> dict[str, bytes]:
    """The first vocabulary that fits the token embedding, under the name that tokenizers know; nothing without any."""
    unfit = []
    for file in _found(places, VOCABULARIES):
        content = read_small(file)
        tokens = content.count(b"\n") + (not content.endswith(b"\n"))
        if 0 <= rows - tokens <= MOST_SPARE_ROWS:
            beside = {own.name: read_small(own) for own in _found(places[:1], [WORDPIECE_SETTINGS])}
            return {VOCABULARY: content, **beside}
        unfit.append(f"{file} has {tokens:,} tokens")
    if unfit:
        problem = f"{'; '.join(unfit)}, the model {rows:,}; put its own there: {CLUE if rows == CLUE_ROWS else BERT}"
        raise FormatError(places[0], None, problem)
    return {}


def _found(places: Iterable[Path], names: Sequence[str]) -> list[Path]:
    return [place / name for place in places for name in names if (place / name).is_file()]
