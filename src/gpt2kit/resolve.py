"""What `--model X` means: an existing path, else a run, else a known name on disk. Nothing is ever downloaded here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.errors import ConfigError, FormatError, ModelNotFound, WeightMismatch
from gpt2kit.formats import huggingface
from gpt2kit.formats.registry import detect, recognise
from gpt2kit.hub.catalogue import MODELS, find, suggestion
from gpt2kit.hub.manifest import is_unfinished
from gpt2kit.runs import NAME, RUNS, Run, is_run

HUB = "hf:"  # before the owner and name of any repository of a hub
ADAPTED = "+"  # between a base and the directory of its adapter
# What the old programs called step N of a run; its files ended in .index, .meta and .data-00000-of-00001.
OLD_STEP = re.compile(r"model-([0-9]{1,18})(?:\.(?:index|meta|data-[0-9]{5}-of-[0-9]{5}))?")


def open_checkpoint(
    ref: str | Path, *, step: int | None = None, models: Path = MODELS, runs: Path = RUNS
) -> Checkpoint:
    """The checkpoint that `ref` names; its `origin` tells which place that was.

    Args:
        ref: a directory, a file, or the common beginning of a TensorFlow checkpoint's files; a run ("run1",
            "run1@2000", "run1@best", also with its path, or "checkpoint/run1/model-2000"); or a known name ("124M",
            "gpt2", "hf:owner/name") whose files are in models/. Each also with the directory of an adapter of PEFT:
            "124M+ADAPTER".
        step: which step, where there are several; the same as "@2000".
        models: the directory of known names.
        runs: the directory of runs, of those that nshepperd's code and gpt-2-simple left too.

    Raises:
        ModelNotFound: nothing there answers to it, or it has no such step.
        ConfigError: `ref` and `step` name two steps.
        FormatError: the place exists but holds no checkpoint, or a damaged one.
        WeightMismatch: its configuration and its weights contradict each other.
    """
    if parts := _base_and_adapter(str(ref), models):
        from gpt2kit.formats import peft_adapter

        base, adapter = parts
        return peft_adapter.with_adapter(open_checkpoint(base, step=step, models=models, runs=runs), adapter)
    place, which = _find(str(ref), models, runs)
    if which and step is not None:
        raise ConfigError(f"{ref} names a step, and {step} is asked for as well; leave one of them out")
    which = which or ("" if step is None else str(step))
    if is_run(place) or (place.parent == runs and not recognise(place)):
        return _open_step(Run(place), which)
    try:
        return _open_place(place, which)
    except (FormatError, WeightMismatch):
        if not is_unfinished(place):
            raise
        by_name = known_directory(str(ref), models)
        how = f"go on with: gpt2 download {ref}" if by_name else "repeat the gpt2 download that began it"
        raise ModelNotFound(f"{place}: its download is not finished; {how}") from None


def known_directory(name: str, models: Path = MODELS) -> Path | None:
    """The directory in `models` of this name, of any repository of a hub, or of another name for a known model."""
    known = find(name)
    names = [name.removeprefix(HUB), *(known.names() if known else ())]
    wanted = [each for each in names if each and (known or name.startswith(HUB) or NAME.fullmatch(each))]
    return next((models / each for each in wanted if (models / each).is_dir()), None)


def adapted(model: str, adapters: Sequence[Path]) -> str:
    """What `open_checkpoint` takes for `model` with the adapters of PEFT in directories. Raises FormatError."""
    if adapters:
        from gpt2kit.formats import peft_adapter

        for adapter in adapters:
            peft_adapter.require(adapter)
    return ADAPTED.join([model, *(str(adapter.absolute()) for adapter in adapters)])  # so named, it is no other path


def _base_and_adapter(ref: str, models: Path) -> tuple[str, str] | None:
    """The parts of "BASE+ADAPTER", where the adapter is there and nothing goes by the whole name."""
    places = [match.start() for match in re.finditer(re.escape(ADAPTED), ref)]
    if not places:
        return None
    from gpt2kit.formats import peft_adapter

    with suppress(OSError, ValueError):  # too long, or with a zero in it
        if not (Path(ref).exists() or recognise(Path(ref)) or known_directory(ref, models)):
            for at in reversed(places):
                if at and peft_adapter.sniff(Path(ref[at + 1 :])):
                    return ref[:at], ref[at + 1 :]
    return None


def _open_place(place: Path, which: str) -> Checkpoint:
    format = detect(place)
    if which in ("", "latest"):
        return format.module.read(place)
    if not format.steps:
        raise ModelNotFound(f"{place}: one model, not the steps of a training; ask for it without a step")
    step = _number(which)
    if step is None:
        raise ModelNotFound(f"{place}: no step answers to {which!r}; ask for {place.name} or {place.name}@STEP")
    return format.module.read(place, step=step)


def _find(ref: str, models: Path, runs: Path) -> tuple[Path, str]:
    """Where `ref` is, and which step of a run it asks for, "" for none."""
    try:
        if ref and (Path(ref).exists() or recognise(Path(ref))):
            return Path(ref), ""
    except (OSError, ValueError):  # too long, or with a zero in it
        ref = ""
    if not ref.strip("@ "):
        raise ModelNotFound("that is no name of a model; expected a path, a run or a known name")
    name, _, which = ref.partition("@")
    if which and Path(name).is_dir():
        return Path(name), which
    if (old := OLD_STEP.fullmatch(Path(ref).name)) and is_run(Path(ref).parent):
        return Path(ref).parent, old[1]
    if NAME.fullmatch(name) and (runs / name).is_dir():
        return runs / name, which
    if place := known_directory(ref, models):
        return place, ""
    raise ModelNotFound(_explanation(ref, models, runs))


def _open_step(run: Run, which: str) -> Checkpoint:
    if which in ("", "latest"):
        step = run.latest() or max(run.steps(), default=None)  # a kill may have left the newest without its name
    else:
        step = run.best() if which == "best" else _number(which)
    if step is None and not run.steps():
        raise ModelNotFound(f"{run.directory}: has saved nothing yet; train it first")
    if step is None:
        name = run.directory.name
        raise ModelNotFound(
            f"{run.directory}: no snapshot answers to {which or 'latest'!r}; ask for {name}, {name}@best or {name}@STEP"
        )
    if step not in run.steps() and recognise(old := run.directory / f"model-{step}"):  # of the program that began it
        return _open_place(old, "")
    return huggingface.read(run.step_directory(step), step=step, model_dir=run.directory)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 19 else None


def _explanation(ref: str, models: Path, runs: Path) -> str:
    here = sorted(place.name for place in runs.glob("*") if place.is_dir() and not place.name.startswith("."))
    tried = f"no model {ref!r}: no such path, no run of that name in {runs}/"
    if find(ref) or ref.startswith(HUB):
        return f"{tried}, and not in {models}/; get it with: gpt2 download {ref}"
    hints = [f"no adapter of PEFT is at {ref.rpartition(ADAPTED)[2]!r}"] if ADAPTED in ref else []
    hints += [f"did you mean {near!r}?"] if (near := suggestion(ref)) else []
    hints += [f"runs here: {', '.join(here)}"] if here else ["make a new model with: gpt2 init"]
    return f"{tried}, and not a known model; {'; '.join(hints)}"
