r"""OpenAI's directory, TensorFlow 1; nshepperd's and gpt-2-simple's runs are the same with other names and more steps.

    model.ckpt.index, model.ckpt.data-00000-of-00001     a TensorBundle; in runs model-STEP
    model.ckpt.meta     the graph, not needed
    checkpoint          text, which bundle is the newest: model_checkpoint_path: "model.ckpt"
    hparams.json        n_vocab, n_ctx, n_embd, n_head, n_layer
    encoder.json, vocab.bpe
nshepperd's runs, checkpoint/RUN, have neither hparams.json nor a vocabulary; models/NAME beside checkpoint/ has them.

Variables, float32: model/wte [V, D]   model/wpe [window, D]   model/ln_f/g, b [D]   and in each layer N, from 0,
    model/hN/ln_1/g, b   ln_2/g, b   attn/c_attn/w [1, D, 3D], b   attn/c_proj/w [1, D, D], b
    mlp/c_fc/w [1, D, 4D], b   mlp/c_proj/w [1, 4D, D], b
Whatever an optimizer keeps about a variable has its name and one part more.
"""

from __future__ import annotations

import glob
import json
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from gpt2kit.atomic import replace_bytes
from gpt2kit.checkpoint import FLOATS, Checkpoint, LazyTensor, check_tensors
from gpt2kit.config.limits import require
from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import ConfigError, FormatError, ModelNotFound
from gpt2kit.formats.huggingface import read_tokenizer_files
from gpt2kit.formats.shapes import config_from_shapes
from gpt2kit.formats.sorted_table import is_table
from gpt2kit.formats.tensor_bundle import index_path, open_tensors, write_tensors
from gpt2kit.json_object import read_object
from gpt2kit.progress import Report
from gpt2kit.tokenizer.open import holds_vocabulary
from gpt2kit.tokenizer.vocabulary import END, OPENAI_PAIR, read_vocabulary, vocabulary_files

POINTER, HPARAMS, BUNDLE = "checkpoint", "hparams.json", "model.ckpt"
FIELDS = {"n_vocab": "vocab_size", "n_ctx": "window", "n_embd": "width", "n_head": "heads", "n_layer": "layers"}
POINTS_TO = re.compile(rb'^\s*model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
MAX_POINTER_BYTES = 1_000_000
PART = re.compile(r"(.+)\.(?:index|meta|data-[0-9]{5,}-of-[0-9]{5,})")
STEP = re.compile(r".*-([0-9]{1,18})")
VARIABLE = re.compile(
    r"model/(?:wte|wpe|ln_f/[gb]|h(?:0|[1-9][0-9]{0,5})"
    r"/(?:ln_[12]/[gb]|attn/c_(?:attn|proj)/[wb]|mlp/c_(?:fc|proj)/[wb]))"
)
KINDS = {"w": "weight", "g": "weight", "b": "bias"}
LARGEST = 2**31  # more than any of these numbers can be
T = TypeVar("T")
TF2_OBJECT = "/.ATTRIBUTES/VARIABLE_VALUE"  # how names of TensorFlow 2 end
MISSING_INDEX = "missing; it lists the tensors, copy it from where the weights came from"


def sniff(path: Path) -> bool:
    """Whether `path` is such a directory, the common beginning of a bundle's file names, or one of these files."""
    if path.is_dir():
        return _newest_name(path) is not None or bool(_bundles(path))
    if not path.is_file():
        return bool(path.name) and index_path(path).is_file()
    return bool(PART.fullmatch(path.name)) or _is_pointer(path) or is_table(path)


def read(path: Path, *, step: int | None = None, model_dir: Path | None = None) -> Checkpoint:
    """The checkpoint at `path`.

    Args:
        path: a directory, a file of a bundle, or what the names of a bundle's files begin with (.../model.ckpt).
        step: which bundle of a directory that has several, model-STEP; None takes the newest.
        model_dir: where hparams.json, encoder.json and vocab.bpe are. Without it they are beside the bundle, or in that
            directory of models/ (beside the run's checkpoint/, or here) whose hparams.json fits the tensors.

    Raises:
        ModelNotFound: there is no such step.
        FormatError, WeightMismatch: the files are damaged, or contradict each other.
    """
    prefix = find_bundle(path, step)
    try:
        tensors = _gpt2_tensors(prefix)
    except FormatError as error:
        numbers = map(step_of, _bundles(prefix.parent).values())
        others = sorted(number for number in numbers if number not in (None, step_of(prefix)))
        if not others:
            raise
        steps = f"there are other steps: {', '.join(map(str, others))} (ask for one: RUN@{others[-1]})"
        raise type(error)(error.path, error.offset, f"{error.problem}; {steps}") from None
    config, tokenizer_files = _surroundings(prefix, tensors, model_dir)
    checkpoint = Checkpoint(config, tensors, tokenizer_files, str(path), step_of(prefix))
    check_tensors(checkpoint)
    return checkpoint


def write(checkpoint: Checkpoint, path: Path, report: Report) -> None:
    """Write the directory `path` as OpenAI published its models, in float32.

    Raises ConfigError, before anything is written, if OpenAI's program could not run such a model.
    """
    write_surroundings(checkpoint, path)
    write_tensors(dict(map(_stored, checkpoint.tensors.values())), path / BUNDLE, report)
    replace_bytes(
        path / POINTER, f'model_checkpoint_path: "{BUNDLE}"\nall_model_checkpoint_paths: "{BUNDLE}"\n'.encode()
    )


def write_surroundings(checkpoint: Checkpoint, path: Path) -> None:
    """Write hparams.json, encoder.json and vocab.bpe into the directory `path`. Raises ConfigError as `write` does."""
    config = checkpoint.config
    _require_openais(config)
    vocabulary = _openais_vocabulary(checkpoint)
    hparams = json.dumps({theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}, indent=2) + "\n"
    path.mkdir(parents=True, exist_ok=True)
    replace_bytes(path / HPARAMS, hparams.encode())
    for name, content in zip(OPENAI_PAIR, vocabulary, strict=False):
        replace_bytes(path / name, content)


def _openais_vocabulary(checkpoint: Checkpoint) -> tuple[bytes, ...]:
    """encoder.json and vocab.bpe, or nothing where there is no such vocabulary."""
    files, origin = checkpoint.tokenizer_files, checkpoint.origin
    if not holds_vocabulary(files):
        if files:
            warnings.warn(
                f"{origin}: left behind, for OpenAI's code cannot read them: {', '.join(files)}", stacklevel=3
            )
        return ()
    others = [token for token in read_vocabulary(files, origin).special if token != END]
    require(
        not others,
        f"{origin}: OpenAI's encoder has no special token but {END}, the vocabulary has {', '.join(others)}; "
        "safetensors and bin keep them",
    )
    return vocabulary_files(files, origin)


# --- which bundle ---


def find_bundle(path: Path, step: int | None) -> Path:
    """What the names of the wanted bundle's files begin with."""
    if path.is_dir() or _is_pointer(path):
        return _bundle_in(path if path.is_dir() else path.parent, step)
    part = PART.fullmatch(path.name)
    prefix = path.with_name(part[1]) if part else path
    if step not in (None, step_of(prefix)):
        raise ModelNotFound(f"{path}: not of step {step}")
    if index_path(prefix).is_file():
        return prefix
    _refuse_version_1(prefix)
    raise FormatError(index_path(prefix), None, MISSING_INDEX)


def bundles_at(path: Path) -> list[Path]:
    """What the names of every bundle's files begin with, of those that `path` may mean."""
    if path.is_dir() or _is_pointer(path):
        return list(_bundles(path if path.is_dir() else path.parent).values())
    part = PART.fullmatch(path.name)
    return [path.with_name(part[1]) if part else path]


def _bundle_in(directory: Path, step: int | None) -> Path:
    bundles, newest = _bundles(directory), _newest_name(directory)
    if not bundles:
        name = newest or BUNDLE
        for file in directory.iterdir():
            if file.name == name:
                _refuse_version_1(file)
        raise FormatError(directory / f"{name:.80}.index", None, MISSING_INDEX)
    steps = {prefix: number for prefix in bundles.values() if (number := step_of(prefix)) is not None}
    wanted = list(bundles.values())
    if step is not None:
        wanted = [prefix for prefix in wanted if steps.get(prefix) == step]
        if not wanted:
            known = ", ".join(map(str, sorted(steps.values())))
            there = f"there are {known}" if known else "its checkpoint has no number: ask for it without a step"
            raise ModelNotFound(f"{directory}: no checkpoint of step {step}; {there}")
    elif newest in bundles:
        return bundles[newest]
    elif len(steps) == len(bundles):
        wanted = [prefix for prefix in wanted if steps[prefix] == max(steps.values())]
    if len(wanted) > 1:
        raise FormatError(
            directory, None, f"holds several checkpoints: {', '.join(map(str, wanted))}; name one of them"
        )
    if step is None and newest not in (None, *bundles):
        warnings.warn(
            f"{directory / POINTER} names {newest!r:.80}, which is not there; read instead: {wanted[0]}", stacklevel=2
        )
    return wanted[0]


def _bundles(directory: Path) -> dict[str, Path]:
    """Every bundle in the directory by name. Its index may be damaged, where the data are beside it."""
    prefixes = [index.with_suffix("") for index in sorted(directory.glob("?*.index")) if index.is_file()]
    return {
        prefix.name: prefix
        for prefix in prefixes
        if is_table(index_path(prefix)) or any(directory.glob(f"{glob.escape(prefix.name)}.data-*"))
    }


def _newest_name(directory: Path) -> str | None:
    """The name in the file `checkpoint`, without a directory: that may be another machine's, or an attack."""
    file = directory / POINTER
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        found = POINTS_TO.search(opened.read(MAX_POINTER_BYTES))
    return re.split(r"[/\\]", _unescaped(found[1]).decode("utf-8", "replace"))[-1] if found else None


def _unescaped(text: bytes) -> bytes:
    """The bytes that a string of a text protocol buffer spells; others than ASCII stand as \\ooo."""

    def spelled(match: re.Match[bytes]) -> bytes:
        if match[1].isdigit():
            return bytes([int(match[1], 8) % 256])
        return {b"n": b"\n", b"r": b"\r", b"t": b"\t"}.get(match[1], match[1])

    return re.sub(rb"\\([0-7]{1,3}|.)", spelled, text)


def _is_pointer(path: Path) -> bool:
    return path.name == POINTER and _newest_name(path.parent) is not None


def step_of(prefix: Path) -> int | None:
    """The number that the name of a bundle ends with."""
    match = STEP.fullmatch(prefix.name)
    return int(match[1]) if match else None


def _refuse_version_1(prefix: Path) -> None:
    if prefix.is_file() and is_table(prefix):
        raise FormatError(
            prefix,
            None,
            "a TensorFlow checkpoint of version 1, one file without an .index, which cannot be read; restore it in "
            "TensorFlow and save it with tf.compat.v1.train.Saver, which writes version 2",
        )


# --- what is in it ---


def _gpt2_tensors(prefix: Path) -> dict[str, LazyTensor]:
    """The model's tensors by canonical name, less what an optimizer and counters keep."""
    index, found = index_path(prefix), open_tensors(prefix)
    if any(name.endswith(TF2_OBJECT) for name in found):
        raise FormatError(index, None, "a checkpoint of TensorFlow 2's objects, not OpenAI's variables")
    if any(name.startswith("newslm/") for name in found):
        raise FormatError(index, None, "a GPT2-ML model (variables newslm/...), which is none of OpenAI's")
    tensors = {}
    for name, tensor in found.items():
        if VARIABLE.fullmatch(name):
            canonical = _canonical(tensor, index)
            tensors[canonical.name] = canonical
        elif name.startswith("model/") and not VARIABLE.fullmatch(name.rpartition("/")[0]):
            raise FormatError(index, None, f"the variable {name:.200} is none of a GPT-2's")
    if not tensors:
        raise FormatError(index, None, f"no GPT-2: there is no model/wte, but {', '.join(list(found)[:3])!r:.200}")
    return tensors


def _canonical(tensor: LazyTensor, index: Path) -> LazyTensor:
    if tensor.dtype not in FLOATS:
        raise FormatError(index, None, f"{tensor.name} is {tensor.dtype}; expected one of {', '.join(FLOATS)}")
    parts = tensor.name.split("/")[1:]
    parts[0] = re.sub(r"^h", "h.", parts[0])
    name = ".".join([*parts[:-1], KINDS.get(parts[-1], f"{parts[-1]}.weight")])
    shape = tensor.shape
    if len(shape) == 3 and shape[0] == 1:  # the convolutions of width 1 that OpenAI made them
        shape = shape[1:]
    return LazyTensor(name, tensor.dtype, shape, lambda: tensor.read().reshape(shape))


def _stored(tensor: LazyTensor) -> tuple[str, LazyTensor]:
    """A canonical tensor by OpenAI's name and in their shape."""
    *place, last = tensor.name.removeprefix("h.").split(".")
    if tensor.name.startswith("h."):
        place[0] = f"h{place[0]}"
    if place not in (["wte"], ["wpe"]):
        place.append("b" if last == "bias" else "g" if "ln_" in place[-1] else "w")
    shape = (1, *tensor.shape) if place[-1] == "w" else tensor.shape
    name = "/".join(["model", *place])
    return name, LazyTensor(name, tensor.dtype, shape, lambda: tensor.read().reshape(shape))


def _require_openais(config: ModelConfig) -> None:
    for holds, what in (
        (config.architecture == "gpt2", f"the architecture {config.architecture}"),
        (config.tied_head, "a head of its own (untied)"),
        (config.activation == "gelu_tanh", f"the activation {config.activation}"),
        (config.inner_width == 4 * config.width, f"an inner width of {config.inner_width}, not 4 * {config.width}"),
        (config.norm_epsilon == 1e-5, f"a norm_epsilon of {config.norm_epsilon}, not 1e-05"),
        (config.scale_attention, "attention scores that are not scaled"),
        (not config.scale_attention_by_layer, "attention scores scaled by layer"),
    ):
        require(holds, f"OpenAI's format cannot hold {what}; the format safetensors can")


# --- what is beside it ---


def _surroundings(
    prefix: Path, tensors: Mapping[str, LazyTensor], model_dir: Path | None
) -> tuple[ModelConfig, dict[str, bytes]]:
    """The configuration and the tokenizer files."""
    home = model_dir or prefix.parent
    files = read_tokenizer_files(home)
    if model_dir or (home / HPARAMS).is_file():
        config = _read_config(home / HPARAMS, prefix, tensors)
    else:
        config = _config_elsewhere(prefix, tensors)
    if model_dir or holds_vocabulary(files):
        return config, files
    found = {near: read_tokenizer_files(near) for near, hparams in _models_near(prefix) if _fits(hparams, config)}
    return config, files | _the_same(found, prefix, "vocabulary", {})


def _read_config(file: Path, prefix: Path, tensors: Mapping[str, LazyTensor]) -> ModelConfig:
    """The configuration in hparams.json. As in gpt-2-simple keys may be missing; the tensors tell these."""
    known = _read_hparams(file)
    if missing := [theirs for theirs, ours in FIELDS.items() if ours not in known]:
        shaped = config_from_shapes(tensors, prefix, f"{' and '.join(missing)} of {file}", known.get("heads"))
        known = {ours: getattr(shaped, ours) for ours in FIELDS.values()} | known
    try:
        return ModelConfig(
            vocab_size=known["vocab_size"],
            window=known["window"],
            width=known["width"],
            layers=known["layers"],
            heads=known["heads"],
            inner_width=4 * known["width"],
        )
    except ConfigError as error:
        raise FormatError(file, None, str(error)) from None


def _read_hparams(file: Path) -> dict[str, int]:
    """The numbers in hparams.json by our names."""
    if not file.is_file():
        raise FormatError(
            file, None, "missing; it tells the shape of the model, copy it from where the weights came from"
        )
    stored = read_object(file)
    known = {name: stored[name] for name in FIELDS if name in stored}
    for name, value in known.items():
        if type(value) is not int or not 1 <= value < LARGEST:
            raise FormatError(file, None, f"{name} is {value!r:.80}; expected a whole number from 1")
    return {FIELDS[name]: value for name, value in known.items()}


def _config_elsewhere(prefix: Path, tensors: Mapping[str, LazyTensor]) -> ModelConfig:
    shaped = config_from_shapes(tensors, prefix, HPARAMS, heads=1)
    near = _models_near(prefix)
    fitting = {
        place: known["heads"] for place, known in near if "heads" in known and _fits(known | {"heads": 1}, shaped)
    }
    heads = _the_same(fitting, prefix, "number of heads", None)
    return config_from_shapes(tensors, prefix, HPARAMS, heads)


def _models_near(prefix: Path) -> list[tuple[Path, dict[str, int]]]:
    """Where the old tools keep models, models/NAME beside a run's checkpoint/ or here, with their hparams.json."""
    run = prefix.parent.resolve()
    places = [file for root in (*run.parents[1:3], Path.cwd()) for file in sorted(root.glob(f"models/*/{HPARAMS}"))]
    found = []
    for file in dict.fromkeys(places):
        with suppress(FormatError):  # somebody else's damaged file is not this model's
            found.append((file.parent, _read_hparams(file)))
    return found


def _fits(hparams: Mapping[str, int], config: ModelConfig) -> bool:
    return all(getattr(config, name) == value for name, value in hparams.items())


def _the_same(found: Mapping[Path, T], prefix: Path, what: str, otherwise: T) -> T:
    """What all places say; `otherwise` where there is none."""
    values = list(found.values())
    if any(value != values[0] for value in values):
        raise FormatError(
            prefix,
            None,
            f"{', '.join(map(str, found))} all fit it, but differ in the {what}; copy the files of the right one "
            "beside it",
        )
    return values[0] if values else otherwise
