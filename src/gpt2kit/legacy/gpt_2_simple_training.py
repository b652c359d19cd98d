"""gpt-2-simple's finetune()."""

from __future__ import annotations

import re
from pathlib import Path

from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.sampling import SamplingConfig
from gpt2kit.config.training import ENDLESS, PRESETS, TrainingConfig
from gpt2kit.data.sources import find_sources
from gpt2kit.jobs.finetune import finetune as train
from gpt2kit.jobs.interruptible import Interruptible
from gpt2kit.legacy.bars import bars
from gpt2kit.legacy.gpt_2_simple_errors import BadValue, NotThere, as_old_errors
from gpt2kit.legacy.gpt_2_simple_files import model_place
from gpt2kit.legacy.old_texts import old_inputs, old_reading
from gpt2kit.legacy.old_training import (
    OPTIMIZERS,
    OldSamples,
    TrainingLines,
    going_on_from,
    old_run,
    say,
)
from gpt2kit.legacy.sessions import forget, load_into, my_turn, require_session
from gpt2kit.resolve import open_checkpoint

SMALL = ("117M", "124M")
# What a training of the old program leaves in a run: a checkpoint, the name of it, events for TensorBoard (ours have a
# time in microseconds in their name).
LEFT_BY_TENSORFLOW = re.compile(
    r"model-\d+\.(index|meta|data-\d+-of-\d+)|checkpoint|events\.out\.tfevents\.\d+\.(?!\d{6}\.).*"
)
ADVICE = """\
For larger models, the recommended finetune() parameters are:
\tuse_memory_saving_gradients = True
\tonly_train_transformer_layers = True
\taccumulate_gradients = 1
"""


@as_old_errors()
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
    run = old_run(checkpoint_dir, run_name)
    if optimizer not in OPTIMIZERS:
        raise BadValue(f"optimizer must be 'adam' or 'sgd', got {optimizer!r}")
    former = going_on_from(run, restore_from)
    start = former or _start(restore_from, model_dir, model_name)
    if sample_length > start.config.window:
        raise BadValue(f"Can't get samples longer than window size: {start.config.window}")
    if model_name not in SMALL:
        print(ADVICE)
    last_step = _last_step(steps, former.step or 0 if former else 0)
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
    replaced = _left_by_tensorflow(run.directory) if overwrite and former else []
    lines = TrainingLines(run, print_every=print_every, save_every=save_every)
    inputs = old_inputs(dataset)
    find_sources(inputs)  # before the session loses its model
    with my_turn(sess):
        forget(sess)  # there may not be room for two
        with bars() as report, Interruptible(report, lambda: say("interrupted")) as interruptible:
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
                inputs,
                Path(model_dir, model_name) if former else start.origin,
                run_name=run.name,
                runs=run.directory.parent,
                training=training,
                reading=old_reading(combine, invalid="ignore"),
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
