"""What `--model X` means: an existing path, else a run, else a known name on disk. Nothing is ever downloaded here."""

from __future__ import annotations

from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.errors import ModelNotFound
from gpt2kit.formats import huggingface
from gpt2kit.formats.registry import detect
from gpt2kit.hub.catalogue import find, suggestion
from gpt2kit.runs import NAME, RUNS, Run

MODELS = Path("models")


def open_checkpoint(ref: str | Path, *, models: Path = MODELS, runs: Path = RUNS) -> Checkpoint:
    """The checkpoint that `ref` names; its `origin` tells which place that was.

    Args:
        ref: a directory or file; a run ("run1", "run1@2000", "run1@best", also with its path); or a known name
            ("124M", "gpt2") whose files are in models/.
        models: the directory of known names.
        runs: the directory of runs.

    Raises:
        ModelNotFound: nothing there answers to it.
        FormatError: the place exists but holds no checkpoint.
    """
    path = Path(ref)
    if path.exists() and not (path / "latest").is_file():
        return detect(path).read(path)
    if step := _open_run_step(str(ref), runs):
        return step
    if known := find(str(ref)):
        for name in known.names():
            if (models / name).is_dir():
                return detect(models / name).read(models / name)
    raise ModelNotFound(_explanation(str(ref), models, runs))


def _open_run_step(ref: str, runs: Path) -> Checkpoint | None:
    name, _, which = ref.partition("@")
    place = Path(name)
    if not place.is_dir():
        place = runs / name
        if not NAME.fullmatch(name) or not place.is_dir():
            return None
    run = Run(place)
    step = {"": run.latest, "latest": run.latest, "best": run.best}.get(which, lambda: _number(which))()
    if step is None:
        raise ModelNotFound(
            f"{place}: no snapshot answers to {which or 'latest'!r}; ask for {name}, {name}@best or {name}@STEP"
        )
    return huggingface.read(run.step_directory(step), step=step, model_dir=place)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and text.isascii() else None


def _explanation(ref: str, models: Path, runs: Path) -> str:
    here = sorted(place.name for place in runs.glob("*") if (place / "latest").is_file())
    tried = f"no model {ref!r}: no such path, no run of that name in {runs}/"
    if known := find(ref):
        place = models / known.name
        return f"{tried}, and no {place}/; put config.json, model.safetensors and the tokenizer of {known.hub_id} there"
    hints = [f"did you mean {near!r}?"] if (near := suggestion(ref)) else []
    hints += [f"runs here: {', '.join(here)}"] if here else ["make a new model with: gpt2 init"]
    return f"{tried}, and not a known model; {'; '.join(hints)}"
