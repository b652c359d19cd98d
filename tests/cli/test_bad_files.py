"""Every file that lies, handed to a command: one line says what is wrong, and nothing else happens."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

CASES = Path(__file__).parents[3] / "shared" / "fixtures" / "bad" / "cases.json"
MARK = "gpt2kit_PWNED_marker"  # what the hostile ones would leave, if their code ran
# What is wrong with these is not the weights: a NaN is pointed out, a missing vocabulary when text is wanted.
OPENED = {"st_nan_weights": "1 values are NaN or infinite", "tf_missing_encoder": "tokenizer    vocab.bpe"}
# Their weights are sound; the vocabulary is refused when a text is to be encoded.
# Opened, with a warning: one points outside, and the bundle beside it is read; one has words that would run code.
WARNED = {
    "tf_checkpoint_traversal": "checkpoint names 'passwd', which is not there; read instead: ",
    "nanogpt_malicious_meta": "nothing of it was run, and only the weights are read",
}
VOCABULARIES = {"tok_vocab_bpe_bad_merge": "merge", "tok_duplicate_ids": "share the id"}


def names(leave_out=()):
    stored = json.loads(CASES.read_text("utf-8")) if CASES.is_file() else {}
    return sorted(set(stored) - set(leave_out))


@pytest.fixture
def case(request, shared, here):
    """The path to hand to a command: in a copy, for none of them may leave a mark."""
    shutil.copytree(shared / "fixtures" / "bad" / request.param, request.param)
    return here / request.param / json.loads(CASES.read_text("utf-8"))[request.param]["target"]


def files_here(here):
    return sorted(path.relative_to(here).as_posix() for path in here.rglob("*"))


def test_all_cases_are_there(shared):
    assert len(names()) == 57


@pytest.mark.parametrize("case", names(leave_out={*OPENED, *VOCABULARIES, *WARNED}), indirect=True)
def test_a_file_that_lies_is_refused_in_one_line(gpt2, here, case):
    before = files_here(here)
    status, out, err = gpt2("inspect", case, "--tensors")
    lines = [line for line in err.splitlines() if not line.startswith("inspect ")]  # how far it was
    assert (status, len(lines)) == (1, 1), (out, err)
    assert lines[0].startswith("gpt2: ")
    assert "Traceback" not in err
    assert files_here(here) == before
    assert not Path(MARK).exists()


@pytest.mark.parametrize("case", sorted(OPENED), indirect=True)
def test_what_can_be_opened_is_opened_with_its_fault_shown(gpt2, case, request):
    status, out, _ = gpt2("inspect", case, "--tensors")
    assert status == 0
    assert OPENED[case.parent.name if case.name == "." else case.name] in out


@pytest.mark.parametrize("case", sorted(VOCABULARIES), indirect=True)
def test_a_vocabulary_that_lies_is_refused_when_it_is_needed(gpt2, case):
    status, out, err = gpt2("generate", "Hello", "--model", case, "--engine", "reference", "--length", "1")
    assert (status, out) == (1, "")
    assert VOCABULARIES[case.name] in err


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("case", sorted(WARNED), indirect=True)
def test_what_is_not_followed_and_not_opened_is_told_of(gpt2, case):
    status, _, err = gpt2("inspect", case)
    assert status == 0
    assert "gpt2: warning: " in err
    assert WARNED[case.name] in err
    assert not Path(MARK).exists()


@pytest.mark.parametrize("case", ["tf_missing_encoder"], indirect=True)
def test_a_missing_vocabulary_is_named_with_its_remedy(gpt2, case):
    status, _, err = gpt2("generate", "Hello", "--model", case, "--engine", "reference", "--length", "1")
    assert status == 1
    assert "encoder.json is missing beside vocab.bpe" in err
    assert "gpt2 download 124M" in err


def test_a_name_out_of_a_file_does_not_command_the_terminal(gpt2, here, golden):
    shutil.copy(golden / "hf-safetensors" / "config.json", here)
    home = golden / "hf-safetensors"
    tensors = load_file(home / "model.safetensors")
    save_file({**tensors, "\x1b[2J\x07wte": np.zeros(1, np.float32)}, here / "model.safetensors")
    status, _, err = gpt2("inspect", here)
    assert status == 1
    assert "1 tensors that the configuration does not know, such as \ufffd[2J\ufffdwte" in err
