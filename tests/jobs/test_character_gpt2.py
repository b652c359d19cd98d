"""nanoGPT's shakespeare_char: a model whose tokens are characters, which no token ends."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.training import TrainingConfig
from gpt2kit.errors import FormatError, RequestError
from gpt2kit.jobs.convert import convert
from gpt2kit.jobs.encode import encode
from gpt2kit.jobs.evaluate import evaluate
from gpt2kit.jobs.finetune import finetune
from gpt2kit.jobs.load import load
from gpt2kit.jobs.score import score
from gpt2kit.resolve import open_checkpoint

GREEDY = SamplingConfig(temperature=0)
LINES = "First Citizen:\nSpeak.\n"


@pytest.fixture(scope="module")
def theirs(shared):
    return shared / "fixtures" / "nanogpt"


@pytest.fixture(scope="module")
def characters(theirs):
    """By their ids."""
    meta = json.loads((theirs / "meta_as_json.json").read_text("utf-8"))
    return [meta["itos"][str(id)] for id in range(65)]


@pytest.fixture
def lines(here):
    (here / "lines.txt").write_text(LINES, "utf-8")
    return here / "lines.txt"


def test_its_characters_are_those_of_meta_pkl(theirs, characters):
    assert json.loads(open_checkpoint(theirs).tokenizer_files["characters.json"]) == characters


def test_it_goes_on_as_nanogpt_did(theirs, characters):
    expected = np.load(theirs / "expected.npz")
    prompt, ids = expected["greedy_prompt"].tolist(), expected["greedy_tokens"][0, 5:].tolist()
    with load(theirs) as model:
        stop = StopConfig(max_new_tokens=len(ids))
        done = model.generate("".join(characters[id] for id in prompt), sampling=GREEDY, stop=stop)[0]
    assert list(done.ids) == ids
    assert done.text == "".join(characters[id] for id in ids)


def test_a_text_out_of_nothing_follows_a_line_break(theirs):
    stop = StopConfig(max_new_tokens=20, min_new_tokens=5)
    with load(theirs) as model:
        out_of_nothing, after_a_break = (model.generate(text, sampling=GREEDY, stop=stop)[0] for text in ("", "\n"))
    assert out_of_nothing.ids == after_a_break.ids
    assert len(out_of_nothing.ids) == 20


def test_a_line_break_does_not_end_it(theirs):
    with load(theirs) as model:
        sampling = SamplingConfig(temperature=0, forced_ids=tuple(model.tokenizer.encode("\n\n")))
        done = model.generate("A", sampling=sampling, stop=StopConfig(max_new_tokens=6))[0]
    assert done.text.startswith("\n\n")
    assert (len(done.ids), done.reason) == (6, "length")


def test_what_it_has_no_character_for_is_refused(theirs):
    with load(theirs) as model, pytest.raises(RequestError, match="knows 65 characters, and 'ë' is none of them"):
        model.generate("Zoë")


def test_it_is_measured_by_characters(theirs, lines):
    assert evaluate(theirs, lines).tokens == len(LINES)
    *_, last = score(theirs, LINES)
    assert last.summary.bytes == len(LINES)


def test_documents_are_parted_by_a_line_break(theirs, lines, here):
    (here / "other.txt").write_text("All:\nSpeak", "utf-8")
    assert encode([lines, here / "other.txt"], "corpus", model=theirs).tokens == len(LINES) + 1 + 10 + 1


def test_its_characters_come_along(theirs, here):
    conversion = convert(theirs, "out")
    assert conversion.difference.nothing
    assert json.loads((here / "out" / "config.json").read_text("utf-8"))["eos_token_id"] is None
    again = convert("out", "again", to="nanogpt")
    assert again.difference.nothing
    assert open_checkpoint("again").tokenizer_files == open_checkpoint(theirs).tokenizer_files


@pytest.mark.slow
def test_it_is_fine_tuned(theirs, lines, here):
    lines.write_text(LINES * 30, "utf-8")
    steps = TrainingConfig(steps=2, batch_size=2, window=16, learning_rate=1e-3, warmup_steps=0)
    outcome = finetune([lines], theirs, training=steps, device="cpu")
    assert open_checkpoint(outcome.directory).tokenizer_files == open_checkpoint(theirs).tokenizer_files


# --- meta.pkl ---


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        (Runs(), "the pickle names 'posix.system'"),
        ([1], "expected a dict whose itos has the character of every id"),
        ({"itos": ["a"]}, "expected a dict whose itos"),
        ({"itos": {"0": "a"}}, "expected a dict whose itos"),
        ({"itos": {0: "a", 2: "b"}}, "itos has 2 ids; expected them to be 0, 1, 2"),
        ({"itos": {0: "a", 1: "bc"}}, "token 1 is 'bc'; expected one character"),
    ],
)
def test_another_pickle_is_left_out_and_never_run(theirs, here, meta, told):
    shutil.copy(theirs / "ckpt.pt", here)
    (here / "meta.pkl").write_bytes(pickle.dumps(meta))
    with pytest.warns(UserWarning, match=rf"meta\.pkl: {told}.*; nothing of it was run, and only the weights are read"):
        assert not open_checkpoint(here).tokenizer_files
    with pytest.warns(UserWarning, match="only the weights"), pytest.raises(FormatError, match="no vocabulary"):
        load(here)
    assert not (here / "ran").exists()
