"""The functions of gpt-2-simple 0.8.1: their parameters and defaults, their lines on the console, their files.

docs/legacy.md tells what is mended, and what is different. Source: github.com/minimaxir/gpt-2-simple.
"""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.reading import ReadingConfig
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.training import PRESETS, TrainingConfig
from gpt2kit.errors import ConfigError, ModelNotFound
from gpt2kit.formats.registry import recognise
from gpt2kit.generate.generator import Generator, in_turn
from gpt2kit.jobs.finetune import finetune as train
from gpt2kit.jobs.interruptible import Interruptible
from gpt2kit.jobs.load import available_gpus, use_threads
from gpt2kit.legacy.bars import bars
from gpt2kit.legacy.gpt_2_simple_files import NotThere, model_place
from gpt2kit.legacy.old_training import ENDLESS, OldSamples, TrainingLines, old_name, spoken
from gpt2kit.legacy.sessions import Session, forget, load_into, model_of, require_session
from gpt2kit.resolve import open_checkpoint
from gpt2kit.runs import Run

OPTIMIZERS = {"adam": "adamw", "sgd": "sgd"}
SMALL = ("117M", "124M")
# What a training of the old program leaves in a run: a checkpoint, the name of it, events for TensorBoard.
LEFT_BY_TENSORFLOW = re.compile(r"model-\d+\.(index|meta|data-\d+-of-\d+)|checkpoint|events\.out\.tfevents\..*")
ADVICE = """\
For larger models, the recommended finetune() parameters are:
\tuse_memory_saving_gradients = True
\tonly_train_transformer_layers = True
\taccumulate_gradients = 1
"""
DELIMITER = "=" * 20 + "\n"


class BadValue(ConfigError, ValueError):
    """A parameter is impossible; the old program raised ValueError."""


class UnevenBatches(ConfigError, AssertionError):
    """The texts cannot be cut into equal batches; the old program asserted it."""


# --- sessions ---


def start_tf_sess(threads: int = -1, server: object = None) -> Session:
    """A session, which a model can be loaded into. `threads` above 0 are so many for the work on a CPU."""
    if threads > 0:
        use_threads(threads)
    return Session()


def reset_session(sess: object, threads: int = -1, server: object = None) -> Session:
    """Free the memory of the model that `sess` has; returns a new session."""
    forget(sess)
    return start_tf_sess(threads, server)


def get_available_gpus() -> list[str]:
    """The names of the GPUs that can be used."""
    return available_gpus()


def load_gpt2(
    sess: object,
    checkpoint: str = "latest",
    run_name: str = "run1",
    checkpoint_dir: str = "checkpoint",
    model_name: str | None = None,
    model_dir: str = "models",
    multi_gpu: bool = False,
    reuse: bool = False,
) -> None:
    """Load the model MODEL_DIR/MODEL_NAME, or, without a name, the run; of it the `checkpoint` "model-STEP"."""
    require_session(sess)
    found = _open(run_name, checkpoint_dir, model_name, model_dir, checkpoint)
    if model_name:
        print("Loading pretrained model", spoken(found.origin), flush=True)
    elif found.step is not None:
        print("Loading checkpoint", old_name(Path(checkpoint_dir, run_name), found.step), flush=True)
    else:
        print("Loading checkpoint", found.origin, flush=True)
    load_into(sess, found)


def _open(
    run_name: str, checkpoint_dir: str, model_name: str | None, model_dir: str, checkpoint: str = "latest"
) -> Checkpoint:
    place = model_place(model_dir, model_name) if model_name else Path(checkpoint_dir, run_name)
    if not place.exists():
        raise NotThere(f"{place}: no such run; finetune makes one, and run_name names another")
    try:
        return open_checkpoint(place if checkpoint == "latest" else place / checkpoint)
    except ModelNotFound as error:
        raise NotThere(str(error)) from None


# --- training ---


def finetune(
    sess: object,
    dataset: str,
    steps: int | str | None = -1,
    model_name: str = "124M",
    model_dir: str = "models",
    combine: int = 50000,
    batch_size: int = 1,
    learning_rate: float = 0.0001,
    accumulate_gradients: int = 5,
    restore_from: str = "latest",
    run_name: str = "run1",
    checkpoint_dir: str = "checkpoint",
    sample_every: int = 100,
    sample_length: int = 1023,
    sample_num: int = 1,
    multi_gpu: bool = False,
    save_every: int = 1000,
    print_every: int = 1,
    max_checkpoints: int | None = 1,
    use_memory_saving_gradients: bool = False,
    only_train_transformer_layers: bool = False,
    optimizer: str = "adam",
    overwrite: bool = False,
    reuse: bool = False,
) -> None:
    """Train MODEL_DIR/MODEL_NAME on a text, file, directory or glob, into CHECKPOINT_DIR/RUN_NAME; `sess` has it then.

    Args:
        sess: of `start_tf_sess`, or any object.
        dataset: what to learn: .txt, .csv (its first column, after a line of header), .npz of `encode_dataset`, others.
        steps: so many more; -1, 0 and None are without end: Ctrl-C saves, and returns.
        model_name: what a new run starts from.
        model_dir: where models are.
        combine: in characters: shorter files are joined with the next.
        batch_size: windows of 1024 tokens in memory at once.
        learning_rate: the same from the first step to the last.
        accumulate_gradients: how many such batches make a step; their gradients are added up.
        restore_from: "latest" goes on with the run; "fresh" begins again; a directory is begun from.
        run_name: the run's name.
        checkpoint_dir: where runs are.
        sample_every: steps between two samples, which are kept as samples/RUN_NAME/samples-N.
        sample_length: of a sample, in tokens.
        sample_num: how many texts a sample has; the last is printed.
        multi_gpu: without effect.
        save_every: steps between two checkpoints.
        print_every: steps between two lines.
        max_checkpoints: how many are kept; 0 keeps all.
        use_memory_saving_gradients: less memory, a third slower.
        only_train_transformer_layers: leave the embeddings as they are; less memory.
        optimizer: "adam" or "sgd".
        overwrite: remove what the old program had saved in the run, once the new checkpoint is there.
        reuse: without effect.
    """
    require_session(sess)
    run = Run.named(run_name, Path(checkpoint_dir))
    if optimizer not in OPTIMIZERS:
        raise BadValue(f"optimizer must be 'adam' or 'sgd', got {optimizer!r}")
    goes_on = restore_from == "latest" and recognise(run.directory) is not None
    start = _start(str(run.directory) if goes_on else restore_from, model_dir, model_name)
    if sample_length > start.config.window:
        raise BadValue(f"Can't get samples longer than window size: {start.config.window}")
    if model_name not in SMALL:
        print(ADVICE)
    last_step = _last_step(steps, start.step or 0 if goes_on else 0)
    parts = max(1, accumulate_gradients)
    settings = {
        "steps": last_step,
        "batch_size": batch_size * parts,
        "accumulate": parts,
        "optimizer": OPTIMIZERS[optimizer],
        "learning_rate": learning_rate,
        "only_train_transformer_layers": only_train_transformer_layers,
        "recompute": use_memory_saving_gradients,
        "save_every": save_every,
        "sample_every": sample_every,
        "print_every": print_every,
        "keep": max_checkpoints or ENDLESS,
    }
    training = TrainingConfig(**{**PRESETS["gpt-2-simple"], **settings})
    replaced = _left_by_tensorflow(run.directory) if overwrite and goes_on else []
    lines = TrainingLines(run, print_every=print_every, says_what_it_does=False, save_every=save_every)

    forget(sess)  # first: there may not be room for two
    with bars() as report, Interruptible(report, lambda: print("interrupted", flush=True)) as interruptible:
        samples = OldSamples(
            run,
            number=sample_num,
            length=sample_length,
            sampling=SamplingConfig(chain="nshepperd", top_k=40, top_p=0),
            every=sample_every,
            last=last_step,
            ahead=1,
            stop_asked=interruptible,
            show=lines.show_last,
        )
        train(
            [dataset],
            start.origin,
            run_name=run_name,
            runs=Path(checkpoint_dir),
            training=training,
            reading=ReadingConfig(combine=max(1, combine), invalid_utf8="ignore"),
            restore_from=restore_from,
            report=interruptible.report,
            announce=lines.announce,
            on_event=lines.on_event,
            write_sample=samples,
            stop_asked=interruptible,
        )
    for path in replaced:
        path.unlink()
    load_into(sess, open_checkpoint(run.directory))


def _start(restore_from: str, model_dir: str, model_name: str) -> Checkpoint:
    """What a training begins from: the model, or another place."""
    if restore_from not in ("latest", "fresh"):
        return open_checkpoint(restore_from)
    try:
        return open_checkpoint(model_place(model_dir, model_name))
    except NotThere:
        print("You need to download the GPT-2 model first via download_gpt2()", flush=True)
        raise


def _last_step(steps: int | str | None, done: int) -> int:
    try:
        wanted = int(steps or 0)
    except ValueError:
        raise BadValue(f"steps must be a whole number, got {steps!r}") from None
    return done + wanted if wanted > 0 else ENDLESS


def _left_by_tensorflow(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if LEFT_BY_TENSORFLOW.fullmatch(path.name)]


# --- writing ---


def generate(
    sess: object,
    run_name: str = "run1",
    checkpoint_dir: str = "checkpoint",
    model_name: str | None = None,
    model_dir: str = "models",
    sample_dir: str = "samples",
    return_as_list: bool = False,
    truncate: str | None = None,
    destination_path: str | None = None,
    sample_delim: str = DELIMITER,
    prefix: str | None = None,
    seed: int | None = None,
    nsamples: int = 1,
    batch_size: int | None = 1,
    length: int = 1023,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 0.0,
    include_prefix: bool = True,
) -> list[str] | None:
    """Write texts with the model of `sess`, and print them, or return or store them.

    Args:
        sess: with a model of `load_gpt2` or `finetune`; if it has none, the next four tell which is loaded.
        run_name: the run's name.
        checkpoint_dir: where runs are.
        model_name: a model instead of the run.
        model_dir: where models are.
        sample_dir: without effect.
        return_as_list: return the texts, and print nothing.
        truncate: a text ends before this.
        destination_path: store the texts in this file, and print nothing.
        sample_delim: stands behind each text, where there are several.
        prefix: what each text begins with.
        seed: the same seed gives the same texts.
        nsamples: how many texts.
        batch_size: how many at once; a divisor of `nsamples`.
        length: most new tokens; with the prefix no text gets longer than the window, less 1.
        temperature: 0 takes the likeliest token, 1 samples as trained.
        top_k: from the k likeliest tokens only; 0: from all.
        top_p: from the likeliest with this probability in all; above 0 it takes the place of `top_k`.
        include_prefix: False leaves the prefix out of texts that were truncated.
    """
    batch_size = 1 if batch_size is None else batch_size
    if batch_size < 1 or nsamples < 1 or nsamples % batch_size:
        raise UnevenBatches(f"nsamples must be a multiple of batch_size, got {nsamples} and {batch_size}")
    model = model_of(sess, batch_size, lambda: _open(run_name, checkpoint_dir, model_name, model_dir))
    sampling = SamplingConfig(
        chain="nshepperd", temperature=temperature, top_k=0 if top_p else top_k, top_p=top_p, seed=seed
    )
    tokens = _room(model, prefix, length)
    stop = StopConfig(max_new_tokens=tokens, stop=(truncate,) if truncate else (), ignore_end=True)
    texts, delimiter = [], sample_delim if nsamples > 1 else ""
    with open(destination_path, "w", encoding="utf-8") if destination_path else nullcontext(sys.stdout) as file:
        for piece in in_turn(model.pieces(prefix or None, samples=nsamples, sampling=sampling, stop=stop)):
            if not piece.completion:
                continue
            # Not its text: the old program wrote halves of characters, too.
            whole = (prefix or "") + model.tokenizer.decode(piece.completion.ids)
            texts.append(_cut(whole, truncate, "" if include_prefix else prefix or "").lstrip("\n"))
            if destination_path or not return_as_list:
                print(f"{texts[-1]}\n{delimiter}", end="", file=file, flush=True)
    return texts if return_as_list else None


def _room(model: Generator, prefix: str | None, length: int) -> int:
    """How many new tokens there can be."""
    window, taken = model.checkpoint.config.window, len(model.tokenizer.encode(prefix or ""))
    if taken >= window - 1:
        raise BadValue(
            f"the prefix has {taken:,} tokens, and with what follows at most {window - 1:,} are possible; shorten it"
        )
    if length < 1:
        raise BadValue(f"length must be 1 or more, got {length}")
    return min(length, window - 1 - taken)


def _cut(text: str, truncate: str | None, left_out: str) -> str:
    """The text before the first `truncate`, and, where it has one, behind `left_out`."""
    if not truncate:
        return text
    found = re.search(f"{re.escape(left_out)}(.*?){re.escape(truncate)}", text, re.DOTALL)
    return found[1] if found else text


def generate_to_file(
    sess: object,
    run_name: str = "run1",
    checkpoint_dir: str = "checkpoint",
    model_name: str | None = None,
    model_dir: str = "models",
    truncate: str | None = None,
    destination_path: str = "gpt_2_gen_texts.txt",
    sample_delim: str = DELIMITER,
    prefix: str | None = None,
    seed: int | None = None,
    nsamples: int = 1,
    batch_size: int | None = 1,
    length: int = 1023,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 0.0,
    include_prefix: bool = True,
) -> None:
    """Write texts to a file; the parameters are those of `generate`."""
    generate(
        sess,
        run_name=run_name,
        checkpoint_dir=checkpoint_dir,
        model_name=model_name,
        model_dir=model_dir,
        truncate=truncate,
        destination_path=destination_path,
        sample_delim=sample_delim,
        prefix=prefix,
        seed=seed,
        nsamples=nsamples,
        batch_size=batch_size,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        include_prefix=include_prefix,
    )
