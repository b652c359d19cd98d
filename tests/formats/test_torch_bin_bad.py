"""Files of shared/fixtures/bad: what cases.json there asks for. A marker would appear if code in them had run."""

import pytest

from gpt2kit.errors import FormatError, TruncatedFile
from gpt2kit.formats import torch_bin

RUNS_CODE = "the pickle names 'posix.system', which weights do not need; files that would run code are refused"
CASES = {
    "pickle_malicious_zip": (FormatError, RUNS_CODE),
    "pickle_malicious_legacy": (FormatError, RUNS_CODE),
    "pickle_malicious_raw": (FormatError, "a bare pickle, which only Python could read, and which may run code"),
    "pickle_truncated_bin": (TruncatedFile, "the zip archive has no end: the file is cut"),
    "shard_bin_traversal": (FormatError, "names the shard '../pickle_malicious_zip/pytorch_model.bin'"),
    "nanogpt_malicious_ckpt/ckpt.pt": (FormatError, RUNS_CODE),
}


@pytest.fixture
def bad(shared):
    return shared / "fixtures" / "bad"


@pytest.mark.parametrize("case", CASES)
def test_it_is_known_and_refused_and_nothing_in_it_is_run(bad, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, problem = CASES[case]
    assert torch_bin.sniff(bad / case)
    with pytest.raises(kind, match=problem):
        torch_bin.read(bad / case)
    assert not [*tmp_path.iterdir(), *bad.glob("**/*PWNED*")]


@pytest.mark.parametrize("case", CASES)
def test_the_message_begins_with_the_file(bad, case):
    with pytest.raises(FormatError, match=f"^{bad / case}"):
        torch_bin.read(bad / case)


@pytest.mark.parametrize("place", ["nanogpt/ckpt.pt", "bad/nanogpt_malicious_meta/ckpt.pt"])
def test_a_checkpoint_of_nanogpt_is_called_by_name(shared, place):
    with pytest.raises(FormatError, match="a checkpoint of nanoGPT; rename it to ckpt"):
        torch_bin.read(shared / "fixtures" / place)
