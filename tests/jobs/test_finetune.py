import gzip
import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.config.toml_file import read_toml
from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import ConfigError, DataError, Gpt2kitError, ModelNotFound, RunLocked
from gpt2kit.jobs.encode import encode
from gpt2kit.jobs.finetune import finetune
from gpt2kit.jobs.learn_vocabulary import learn
from gpt2kit.jobs.load import load
from gpt2kit.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:run1 goes on with")]

TEXT = "The cat sat on the mat. The dog ate the fog, and then the cat ate the dog; so it goes.\n" * 20
SHORT = TrainingConfig(
    steps=20, batch_size=2, window=16, learning_rate=1e-3, warmup_steps=5, print_every=5, validate_every=10
)
ONE_STEP = replace(SHORT, steps=1)


@pytest.fixture(autouse=True)
def text(here):
    """What the runs learn: about 800 tokens."""
    (here / "text.txt").write_text(TEXT, encoding="utf-8")


@pytest.fixture
def planned(here, model):
    """The plan of a run of one step on a text, with some settings changed."""

    def plan(*dataset, **changes):
        plans = []
        finetune(dataset or ["text.txt"], model, training=replace(ONE_STEP, **changes), announce=plans.append)
        return plans[0]

    return plan


# --- a run ---


def test_a_run_learns(here, model):
    first = finetune(["text.txt"], model, training=ONE_STEP, run_name="first")
    last = finetune(["text.txt"], model, training=replace(SHORT, steps=60))
    assert last.loss < first.loss - 1
    assert last.validation_loss < first.validation_loss - 1


def test_a_run_directory_opens_in_transformers(here, model, transformers):
    outcome = finetune(["text.txt"], model, training=SHORT)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(outcome.directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(outcome.directory)
    ids = tokenizer("The cat").input_ids
    with torch.no_grad():
        logprobs_TV = torch.log_softmax(theirs(torch.tensor([[tokenizer.eos_token_id, *ids[:-1]]])).logits[0], -1)
    with load("run1", engine="reference") as ours:
        scores = ours.score("The cat")
    assert scores.ids_T.tolist() == ids
    np.testing.assert_allclose(scores.logprobs_T, logprobs_TV[range(len(ids)), ids], atol=1e-4)


def test_a_run_directory_has_what_its_layout_promises(here, model):
    directory = finetune(["text.txt"], model, training=SHORT).directory
    assert directory.as_posix() == "checkpoint/run1"
    expected = {"config.json", "vocab.json", "merges.txt", "model.safetensors", "run.toml", "counter", "metrics.jsonl"}
    assert expected | {"loss.png", "latest", "best", "steps"} <= {path.name for path in directory.iterdir()}


def test_the_curve_is_a_picture_and_drawn_again_where_it_is_missing(here, model):
    curve = finetune(["text.txt"], model, training=SHORT).directory / "loss.png"
    assert curve.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    curve.unlink()  # as if the program had been killed before it drew
    assert finetune(["text.txt"], model, training=SHORT).new_steps == 0
    assert curve.is_file()


def test_the_events_are_lines_of_json_each_with_step_and_time(here, model):
    directory = finetune(["text.txt"], model, training=SHORT).directory
    events = [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {event["event"] for event in events} == {"train", "validation", "sample", "save"}
    assert [event["step"] for event in events if event["event"] == "train"] == [1, 5, 10, 15, 20]
    assert [event["step"] for event in events if event["event"] == "save"] == [10, 20]
    assert all(event["time"] > 1.7e9 for event in events)
    trained = next(event for event in events if event["event"] == "train")
    assert {"tokens", "loss", "lr", "grad_norm", "tokens_per_second"} <= set(trained)


def test_tensorboard_reads_the_losses_of_a_run(here, model):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory = finetune(["text.txt"], model, training=SHORT).directory
    finetune(["text.txt"], model, training=SHORT)  # nothing to do, nothing to tell
    assert len(list(directory.glob("events.out.tfevents.*"))) == 1
    board = EventAccumulator(str(directory)).Reload()
    assert [scalar.step for scalar in board.Scalars("loss/validation")] == [10, 20]


def test_samples_are_in_the_run_and_where_the_old_tools_put_them(here, model):
    heard = []
    training = replace(SHORT, sample_every=8, sample_tokens=12)
    finetune(["text.txt"], model, training=training, on_event=heard.append)
    samples = {event["step"]: event["text"] for event in heard if event["event"] == "sample"}
    assert list(samples) == [8, 16, 20]
    for step, text in samples.items():
        for place in (here / "checkpoint" / "run1" / "samples", here / "samples" / "run1"):
            assert (place / f"samples-{step}").read_bytes() == f"======== SAMPLE 1 ========\n{text}\n".encode()


def test_without_samples_there_is_no_directory_for_them(here, model):
    finetune(["text.txt"], model, training=replace(SHORT, sample_every=0))
    assert not (here / "samples").exists()


def test_the_newest_snapshots_and_the_best_are_kept(here, model):
    finetune(["text.txt"], model, training=replace(SHORT, save_every=4, validate_every=4, keep=2))
    run = Run.named("run1")
    assert run.steps() == sorted({16, 20, run.best()})


def test_the_model_it_starts_from_stays_as_it_was(here, model):
    before = (model / "model.safetensors").read_bytes()
    finetune(["text.txt"], model, training=SHORT)
    assert (model / "model.safetensors").read_bytes() == before


def test_a_run_can_start_from_another_run(here, model):
    finetune(["text.txt"], model, training=SHORT)
    plans = []
    finetune(["text.txt"], "run1", run_name="run2", training=SHORT, announce=plans.append)
    assert "run1" in plans[0].origin
    assert Run.named("run1").latest() == 20


def test_settings_are_written_beside_the_model(here, model):
    finetune(["text.txt"], model, training=SHORT)
    settings = read_toml(Run.named("run1").directory / "run.toml")
    assert settings["dataset"] == ["text.txt"]
    assert settings["run_name"] == "run1"
    assert (settings["training"]["steps"], settings["training"]["learning_rate"]) == (20, 1e-3)


def test_training_stops_where_the_held_out_text_is_not_learnt_any_more(here, model):
    """Random letters cannot be foretold: what learns them by heart does worse and worse on others."""
    letters = np.random.default_rng(0).choice(list("abcdefgh"), 2000)
    (here / "noise.txt").write_text("".join(letters), encoding="utf-8")
    training = replace(SHORT, steps=3000, learning_rate=1e-2, batch_size=16, patience=2, sample_every=0)
    outcome = finetune(["noise.txt"], model, training=training)
    assert outcome.stopped_early
    assert outcome.best_step == outcome.step - 20 < 1000  # two measurements ago


# --- what is learnt from ---


def as_text(place):
    return [place / "0.txt", place / "1.txt"]


def as_glob(place):
    return [place / "*.txt"]


def as_directory(place):
    return [place]


def as_gzip(place):
    for name in ("0.txt", "1.txt"):
        (place / f"{name}.gz").write_bytes(gzip.compress((place / name).read_bytes()))
        (place / name).unlink()
    return [place]


def as_json_lines(place):
    lines = [json.dumps({"text": path.read_text(encoding="utf-8")}) for path in as_text(place)]
    (place / "both.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return [place / "both.jsonl"]


def as_csv(place):
    rows = ["text", *(f'"{path.read_text(encoding="utf-8")}"' for path in as_text(place))]
    (place / "both.csv").write_text("\n".join(rows), encoding="utf-8")
    return [place / "both.csv"]


def as_shards(place, model):
    return [encode(as_text(place), place.parent / "shards", model=model).path]


def as_npz(place, model):
    return [encode(as_text(place), place.parent / "ids.npz", model=model, reading=ReadingConfig(combine=1)).path]


@pytest.mark.parametrize("form", [as_text, as_glob, as_directory, as_gzip, as_json_lines, as_csv, as_shards, as_npz])
def test_it_learns_from_whatever_encode_takes(here, planned, model, transformers, form):
    texts = ["The cat sat on the mat. " * 9, "The dog ate the fog. " * 9]
    (here / "texts").mkdir()
    for number, text in enumerate(texts):
        (here / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    needs_model = form in (as_shards, as_npz)
    dataset = form(here / "texts", model) if needs_model else form(here / "texts")
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(model)
    tokens = sum(len(tokenizer(text).input_ids) for text in texts)
    plan = planned(*dataset, validation_share=0.0)
    assert plan.tokens == tokens + (0 if form is as_npz else 2)  # the old programs' files have no end tokens
    assert plan.documents == 2


def test_the_plan_counts_what_is_learnt_and_what_is_held_out(here, planned, model, transformers):
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(model)
    tokens = len(tokenizer((here / "text.txt").read_text(encoding="utf-8")).input_ids) + 1  # the end token
    plan = planned(validation_share=0.25)
    assert plan.held_out == round(tokens / 4)
    assert plan.tokens == tokens - round(tokens / 4)
    assert (plan.window, plan.done, plan.documents) == (16, 0, 1)


def test_whole_documents_are_held_out(here, planned):
    """Of ten documents of nine tokens each, the vocabulary having none for these pairs, a fifth is two."""
    for number in range(10):
        (here / f"{number}.txt").write_bytes(b"~^~^~^~^")
    plan = planned(*(f"{number}.txt" for number in range(10)), validation_share=0.2, window=4)
    assert (plan.tokens, plan.held_out, plan.documents) == (72, 18, 10)


def test_holding_out_nothing_measures_nothing(here, model):
    outcome = finetune(["text.txt"], model, training=replace(SHORT, validation_share=0))
    assert (outcome.validation_loss, outcome.best_step) == (None, None)


@pytest.mark.parametrize(("asked", "window"), [(None, 56), (30, 30), (1000, 56)])
def test_the_window_is_the_models_unless_a_shorter_one_is_asked_for(planned, asked, window):
    assert planned(window=asked).window == window


def test_a_short_text_shortens_the_window_and_is_named_as_the_reason(here, planned):
    """Seven bytes that the vocabulary cuts into single ones, and the end token: a window of 7."""
    (here / "short.txt").write_bytes(b"~^~^~^~")
    plan = planned("short.txt", validation_share=0.0, window=None)
    assert (plan.tokens, plan.window) == (8, 7)
    made = next(made for made in plan.decisions if made.setting == "window")
    assert made.value == 7
    assert "the text has 8 tokens" in made.reason


# --- what is decided ---


def test_what_is_left_open_is_decided_and_told_with_a_reason(here, model):
    plans = []
    finetune(["text.txt"], model, training=TrainingConfig(steps=1), announce=plans.append)
    decided = {made.setting: made.value for made in plans[0].decisions}
    asked = TrainingConfig(steps=1)
    open_settings = {field.name for field in fields(asked) if getattr(asked, field.name) in (None, "auto")}
    assert set(decided) == open_settings - {"epochs"}
    assert all(made.reason for made in plans[0].decisions)
    written = read_toml(Run.named("run1").directory / "run.toml")["training"]
    assert {name: written[name] for name in decided} == pytest.approx(decided)


def test_what_is_asked_for_is_not_decided(planned):
    decided = {made.setting for made in planned(validation_share=0.1, precision="fp32", accumulate=1).decisions}
    assert decided == {"save_every", "sample_every"}


@pytest.mark.parametrize("epochs", [0.5, 3])
def test_epochs_are_passes_over_the_text(planned, epochs):
    plan = planned(steps=None, epochs=epochs, batch_size=4)
    windows = (plan.tokens - 1) // 16 - 1
    assert plan.steps == -(-windows * epochs // 4)


# --- refusals ---


def foreign_shards(here):
    """Shards of the same text in another vocabulary."""
    learn(["text.txt"], 270, here / "vocabulary")
    encode(["text.txt"], here / "foreign", model=here / "vocabulary")
    return "foreign"


def a_file_of(content):
    def write(here):
        (here / "bad.txt").write_bytes(content)
        return "bad.txt"

    return write


REFUSED = {
    "no such file": (lambda here: "nothing.txt", {}, r"nothing\.txt: no such file"),
    "empty": (a_file_of(b""), {}, r"bad\.txt: .*empty"),
    "not UTF-8": (a_file_of(b"abc \xff"), {}, r"bad\.txt: not UTF-8 at byte 4"),
    "too short": (a_file_of(b"~"), {"training": replace(SHORT, validation_share=0.5)}, "tokens to learn from: 1;"),
    "another vocabulary": (
        foreign_shards,
        {},
        r"foreign: encoded with another vocabulary \(270 .*\(320\).*gpt2 encode",
    ),
    "unknown model": (lambda here: "text.txt", {"model": "nowhere"}, "no model 'nowhere'"),
    "no such step": (lambda here: "text.txt", {"restore_from": "50"}, "no step 50; kept are: none"),
    "no such device": (lambda here: "text.txt", {"device": "mps"}, "cannot use the device mps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_no_run(here, model, name):
    dataset, how, said = REFUSED[name]
    if name == "no such device" and torch.backends.mps.is_available():
        pytest.skip("there is such a device here")
    with pytest.raises(Gpt2kitError, match=said):
        finetune([dataset(here)], **{"model": model, "training": SHORT, **how})
    assert not (here / "checkpoint" / "run1").exists()


def test_the_encoded_text_of_a_run_that_has_begun_is_not_removed(here, model):
    finetune(["text.txt"], model, training=SHORT)
    with pytest.raises(DataError, match=r"nothing\.txt"):
        finetune(["nothing.txt"], model, training=SHORT)
    assert (here / "checkpoint" / "run1" / "tokens" / "manifest.json").is_file()


def test_a_run_in_training_is_not_trained_twice(here, model):
    with Run.named("run1").locked(), pytest.raises(RunLocked, match="run1"):
        finetune(["text.txt"], model, training=SHORT)


def test_no_text_at_all_is_refused(here, model):
    with pytest.raises(DataError, match="no text"):
        finetune([], model, training=SHORT)


def test_a_run_name_is_no_path(here, model):
    with pytest.raises(ConfigError, match=r"'\.\./run1'"):
        finetune(["text.txt"], model, run_name="../run1", training=SHORT)


def test_a_loss_that_is_no_number_ends_training_names_the_step_and_leaves_the_snapshot_whole(here, model):
    finetune(["text.txt"], model, training=SHORT)
    wild = replace(SHORT, steps=30, learning_rate=1e30, clip_norm=0.0, precision="fp32")
    with pytest.raises(ConfigError, match=r"step 2\d: the loss is nan.*the snapshot of step 20 is whole"):
        finetune(["text.txt"], model, training=wild)
    assert Run.named("run1").newest_sound() == (20, [])
    assert finetune(["text.txt"], model, training=replace(SHORT, steps=30)).new_steps == 10


def test_a_known_model_that_is_not_here_is_answered_with_how_to_get_it(here):
    with pytest.raises(ModelNotFound, match="get it with: gpt2 download 124M"):
        finetune(["text.txt"], "124M", training=SHORT)
