"""The functions of gpt-2-simple 0.8.1: their parameters and defaults, their lines on the console, their files.

docs/legacy.md tells what is mended, and what is different. Source: github.com/minimaxir/gpt-2-simple.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.generate.generator import Generator, in_turn
from gpt2kit.jobs.load import available_gpus, use_threads
from gpt2kit.legacy.gpt_2_simple_errors import BadValue, NotThere, UnevenBatches, as_old_errors
from gpt2kit.legacy.gpt_2_simple_files import model_place
from gpt2kit.legacy.old_training import old_name, spoken
from gpt2kit.legacy.sessions import Session, forget, load_into, model_of, my_turn
from gpt2kit.resolve import open_checkpoint

DELIMITER = "=" * 20 + "\n"


# --- sessions ---


def start_tf_sess(threads: int = -1, server: object = None) -> Session:
    """A session, which a model can be loaded into. `threads` above 0 are so many for the work on a CPU."""
    if threads <= 0:
        return Session()
    use_threads(threads)
    return Session(threads)


def reset_session(sess: object, threads: int = -1, server: object = None) -> Session:
    """Free the memory of the model that `sess` has; returns a new session."""
    with my_turn(sess):
        forget(sess)
    return start_tf_sess(threads, server)


def get_available_gpus() -> list[str]:
    """The names of the GPUs that can be used."""
    return available_gpus()


@as_old_errors()
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
    if checkpoint != "latest" and Path(checkpoint_dir, checkpoint).is_dir():  # until 0.6 the run's name stood second
        run_name, checkpoint = checkpoint, "latest"
    with my_turn(sess):
        load_into(sess, _told(run_name, checkpoint_dir, model_name, model_dir, checkpoint))


def _told(
    run_name: str, checkpoint_dir: str, model_name: str | None, model_dir: str, checkpoint: str = "latest"
) -> Checkpoint:
    """A model or a run, once the console says which."""
    found = _open(run_name, checkpoint_dir, model_name, model_dir, checkpoint)
    if model_name:
        print("Loading pretrained model", spoken(found.origin), flush=True)
    elif found.step is not None:
        print("Loading checkpoint", old_name(Path(checkpoint_dir, run_name), found.step), flush=True)
    else:
        print("Loading checkpoint", found.origin, flush=True)
    return found


def _open(run_name: str, checkpoint_dir: str, model_name: str | None, model_dir: str, checkpoint: str) -> Checkpoint:
    place = model_place(model_dir, model_name) if model_name else Path(checkpoint_dir, run_name)
    if not place.exists():
        raise NotThere(f"{place}: no such run; finetune makes one, and run_name names another")
    return open_checkpoint(place if checkpoint == "latest" else place / checkpoint)


# --- writing ---


@as_old_errors()
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
    nsamples, batch_size = int(nsamples), int(batch_size)  # servers passed on floats
    if batch_size < 1 or nsamples < 1 or nsamples % batch_size:
        raise UnevenBatches(f"nsamples must be a multiple of batch_size, got {nsamples} and {batch_size}")
    top_p = min(max(top_p, 0), 1)  # above 1 kept all, below 0 was off
    sampling = SamplingConfig(
        chain="nshepperd", temperature=temperature, top_k=0 if top_p else top_k, top_p=top_p, seed=seed
    )
    texts, delimiter = [], sample_delim if nsamples > 1 else ""
    file: IO[str] | None = None
    with my_turn(sess), ExitStack() as stack:
        model = model_of(sess, batch_size, lambda: _told(run_name, checkpoint_dir, model_name, model_dir))
        tokens = _room(model, prefix, length)
        stop = StopConfig(max_new_tokens=tokens, stop=(truncate,) if truncate else (), ignore_end=True)
        for piece in in_turn(model.pieces(prefix or None, samples=nsamples, sampling=sampling, stop=stop)):
            if not piece.completion:
                continue
            # Not its text: the old program wrote halves of characters, too.
            whole = (prefix or "") + model.tokenizer.decode(piece.completion.ids)
            texts.append(_cut(whole, truncate, "" if include_prefix else prefix or "").lstrip("\n"))
            if destination_path and not file:  # now: what cannot be written leaves the file as it was
                file = stack.enter_context(open(destination_path, "w", encoding="utf-8"))
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
