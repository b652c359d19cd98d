"""An adapter of PEFT's kind LoRA: what a training adds to the weights of a GPT-2, in a small directory of its own.

adapter_config.json         peft_type: "LORA", r, lora_alpha, target_modules and more: see peft_settings
adapter_model.safetensors   or adapter_model.bin; "base_model.model." before each name, the rest as PyTorch's modules:
    MODULE.lora_A.weight [R, in]    MODULE.lora_B.weight [out, R]         of a matrix
    MODULE.lora_embedding_A [R, V]  MODULE.lora_embedding_B [D, R]        of an embedding
    MODULE.weight, MODULE.bias, MODULE.base_layer.bias                    learnt whole: they replace the base's
An adapted matrix is W + scale * B A, turned as W is, where scale is lora_alpha / R, or with use_rslora lora_alpha /
sqrt(R). rank_pattern and alpha_pattern tell other r and lora_alpha for some modules. A head that was tied to an adapted
embedding stays what it was, and the other way round: so it was trained. Which modules are adapted the tensors tell;
target_modules is held against them. Kinds of LoRA that compute otherwise (DoRA, ...) are refused by name.
Source: github.com/huggingface/peft 0.21, tuners/lora/layer.py, utils/save_and_load.py.

Shape letters: R rank   I rows of a stored matrix   O its columns
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gpt2kit.atomic import replace_bytes
from gpt2kit.checkpoint import FLOATS, Checkpoint, LazyTensor, tensor_shapes
from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.formats.peft_settings import Settings, read_settings
from gpt2kit.formats.safetensors_file import open_tensors, write_tensors
from gpt2kit.formats.state_dict import HEAD, settle_head
from gpt2kit.formats.torch_file import named_tensors, read_object
from gpt2kit.progress import Report, silent

CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
EMBEDDING = "wte.weight"
PREFIX = "base_model.model."
# The name of an adapter, "default", stands in files that save_pretrained did not write.
LOW_RANK = re.compile(r"(.+)\.(lora_|lora_embedding_)([AB])(?:\.(?!weight$|bias$)\w+)?(\.weight)?")
WRAPPED = re.compile(r"\.(?:base_layer|modules_to_save(?:\.\w+)?)(?=\.(?:weight|bias)$)")
LONGEST_NAME = 200
ADDED_ROWS = 1024  # at once


@dataclass(frozen=True)
class LowRank:
    """What is added to one matrix. `a` and `b` carry PEFT's names for them."""

    a: LazyTensor
    b: LazyTensor
    scale: float


@dataclass(frozen=True)
class Adapter:
    """An adapter at rest; nothing of its tensors is read."""

    settings: Settings
    low_rank: Mapping[str, LowRank] = field(repr=False)
    """By the canonical name of the matrix."""
    whole: Mapping[str, LazyTensor] = field(repr=False)
    """Tensors in place of the base's, by canonical name; they carry PEFT's names."""
    origin: Path


def sniff(path: Path) -> bool:
    """Whether `path` is the directory of an adapter."""
    return (path / CONFIG).is_file()


def directory_of(path: Path) -> Path | None:
    """The directory of the adapter that `path` is, or is a file of."""
    home = path.parent if path.name in (CONFIG, WEIGHTS, OLD_WEIGHTS) else path
    return home if sniff(home) else None


def require(path: Path) -> None:
    """Raise FormatError unless `path` is the directory of an adapter."""
    if not sniff(path):
        raise FormatError(path, None, f"no adapter of PEFT, which is a directory with {CONFIG} and {WEIGHTS}")


def read(path: Path) -> Adapter:
    """The adapter in the directory `path`. Raises FormatError where it is damaged, or of a kind not known here."""
    require(path)
    settings, file = read_settings(path / CONFIG), _weights(path)
    found = named_tensors(read_object(file), file) if file.name == OLD_WEIGHTS else open_tensors(file)
    halves, whole = _sorted(found, file)
    pairs = {f"{_canonical(module)}.weight": _pair(module, two, settings, file) for module, two in halves.items()}
    if len(pairs) < len(halves):
        raise FormatError(
            file, None, "names some modules with transformer. and the same without; which count is not told"
        )
    return Adapter(settings, pairs, whole, path)


def write(adapter: Adapter, path: Path, report: Report = silent) -> None:
    """Write the directory `path`, which PEFT loads; the weights come last: who has them is whole."""
    path.mkdir(parents=True, exist_ok=True)
    replace_bytes(path / CONFIG, (json.dumps(adapter.settings.stored, indent=2, sort_keys=True) + "\n").encode())
    halves = [half for low_rank in adapter.low_rank.values() for half in (low_rank.a, low_rank.b)]
    write_tensors({tensor.name: tensor for tensor in (*halves, *adapter.whole.values())}, path / WEIGHTS, report)


def with_adapter(checkpoint: Checkpoint, path: str | Path) -> Checkpoint:
    """The model with the adapter in the directory `path`: its tensors, float32, are computed when they are read.

    Raises:
        FormatError: the adapter is damaged, incomplete, or of a kind not known here.
        WeightMismatch: it belongs to another model than `checkpoint`.
    """
    adapter = read(Path(path))
    _require_fit(adapter, checkpoint)
    base = checkpoint.stored_as("float32")
    whole = {name: replace(tensor, name=name).stored_as("float32") for name, tensor in adapter.whole.items()}
    copies = {name for name, tensor in adapter.whole.items() if adapter.settings.saves(_module(tensor))}
    # What is no copy is the base's own: biases, and an adapted embedding, stored along under either of its names.
    along = {name: tensor for name, tensor in whole.items() if name not in copies}
    config, tensors = settle_head(base.config, {**base.tensors, **along}, adapter.origin)
    if config.tied_head and not {EMBEDDING, HEAD}.isdisjoint({*copies, *adapter.low_rank}):
        config, tensors[HEAD] = replace(config, tied_head=False), replace(tensors[EMBEDDING], name=HEAD)
    tensors |= {name: whole[name] for name in copies}
    tensors |= {name: _adapted(tensors[name], low_rank) for name, low_rank in adapter.low_rank.items()}
    return replace(
        checkpoint,
        config=config,
        tensors=tensors,
        origin=f"{checkpoint.origin}+{path}",
        adapters=(*checkpoint.adapters, str(path)),
    )


def sha256_of(path: Path) -> str:
    """Of the adapter's files in the directory `path`."""
    digest = hashlib.sha256()
    for file in (path / CONFIG, _weights(path)):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _weights(path: Path) -> Path:
    file = next((path / name for name in (WEIGHTS, OLD_WEIGHTS) if (path / name).is_file()), None)
    if file is None:
        raise FormatError(path, None, f"an adapter without weights: expected {WEIGHTS} or {OLD_WEIGHTS}")
    return file


def _sorted(
    found: Mapping[str, LazyTensor], file: Path
) -> tuple[dict[str, dict[str, LazyTensor]], dict[str, LazyTensor]]:
    """The halves of low rank, by module and then "A" or "B", and the rest, by canonical name."""
    halves: dict[str, dict[str, LazyTensor]] = {}
    whole: dict[str, LazyTensor] = {}
    for stored, tensor in found.items():
        if len(stored) > LONGEST_NAME or not stored.isprintable():
            raise FormatError(file, None, f"a tensor is called {stored!r:.80}; expected one of PEFT's names")
        if tensor.dtype not in FLOATS:
            raise FormatError(file, None, f"{stored} is {tensor.dtype}; expected {', '.join(FLOATS)}")
        name = stored.removeprefix(PREFIX)
        if match := LOW_RANK.fullmatch(name):
            module, kind, half, end = match.groups(default="")
            place, key, name = halves.setdefault(module, {}), half, f"{module}.{kind}{half}{end}"
        else:
            place, key = whole, _canonical(WRAPPED.sub("", name))
        if key in place:
            raise FormatError(file, None, f"{stored} is a second {key}; which of them counts is not told")
        place[key] = replace(tensor, name=f"{PREFIX}{name}")
    if not halves:
        raise FormatError(file, None, f"holds no lora_A of any module, but {', '.join(found) or 'nothing':.200}")
    return halves, whole


def _canonical(name: str) -> str:
    return name.removeprefix("transformer.")


def _module(tensor: LazyTensor) -> str:
    """What PEFT calls the module of a tensor that carries PEFT's name."""
    match = LOW_RANK.fullmatch(name := tensor.name.removeprefix(PREFIX))
    return match[1] if match else WRAPPED.sub("", name).rpartition(".")[0]


def _pair(module: str, halves: Mapping[str, LazyTensor], settings: Settings, file: Path) -> LowRank:
    if missing := {"A", "B"} - halves.keys():
        raise FormatError(file, None, f"{module} has no lora_{missing.pop()}, only the other half")
    a, b = halves["A"], halves["B"]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise FormatError(file, None, f"{module}: lora_A {a.shape} and lora_B {b.shape} have no product")
    if a.shape[0] != (rank := settings.rank(module)):
        raise FormatError(file, None, f"{a.name} is {a.shape}, but {settings.file.name} tells of rank {rank} there")
    return LowRank(a, b, settings.scale(module))


def _require_fit(adapter: Adapter, checkpoint: Checkpoint) -> None:
    """Raise WeightMismatch or FormatError unless tensors, target_modules and the base agree with each other."""
    shapes = tensor_shapes(replace(checkpoint.config, tied_head=False))
    found = [(name, tensor.name, tensor.shape) for name, tensor in adapter.whole.items()]
    found += [(name, each.a.name, _shape_of_product(name, each)) for name, each in adapter.low_rank.items()]
    for name, stored, shape in found:
        if shape != shapes.get(name):
            has = f"has {name} {shapes[name]}" if name in shapes else "has no such tensor"
            raise WeightMismatch(
                f"{adapter.origin}: {stored} is for a tensor of {shape}, but {checkpoint.origin} {has}; name the "
                "base that the adapter was trained on"
            )
    tying = checkpoint.config.tied_head and adapter.settings.stored.get("ensure_weight_tying")
    if tying and not {EMBEDDING, HEAD}.isdisjoint(name for name, _, _ in found):
        raise FormatError(
            adapter.settings.file,
            None,
            "ensure_weight_tying: of an embedding adapted under two names PEFT keeps one, and merges it otherwise than "
            "it computes; merge it with PEFT, and take what that saves",
        )
    _require_targets(adapter, [name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2])


def _require_targets(adapter: Adapter, matrices: list[str]) -> None:
    found = {_module(each.a) for each in adapter.low_rank.values()}
    prefix = "transformer." if all(module.startswith(("transformer.", "lm_head")) for module in found) else ""
    targets = adapter.settings.targets(name if name == "lm_head" else prefix + name for name in matrices)
    if targets is None or targets == found:
        return
    if missing := sorted(targets - found):
        raise FormatError(
            adapter.origin,
            None,
            f"target_modules asks for {len(missing)} modules of this base without tensors here, such as {missing[0]}; "
            "the adapter is incomplete, or for a smaller base",
        )
    surplus = sorted(found - targets)
    raise FormatError(adapter.origin, None, f"has tensors for {surplus[0]}, for which its target_modules does not ask")


def _shape_of_product(name: str, low_rank: LowRank) -> tuple[int, int]:
    """The shape of a canonical tensor that this can be added to."""
    rows, columns = low_rank.a.shape[1], low_rank.b.shape[0]
    return (columns, rows) if name == HEAD else (rows, columns)


def _adapted(base: LazyTensor, low_rank: LowRank) -> LazyTensor:
    def load() -> np.ndarray:
        a, b = low_rank.a.read_float32(), low_rank.b.read_float32()
        left_IR, right_RO = (b, a) if base.name == HEAD else (a.T, b.T)
        values_IO = np.array(base.read_float32())
        for begin in range(0, len(values_IO), ADDED_ROWS):
            part = slice(begin, begin + ADDED_ROWS)
            values_IO[part] += low_rank.scale * (left_IR[part] @ right_RO)
        return values_IO

    return LazyTensor(base.name, "float32", base.shape, load)
