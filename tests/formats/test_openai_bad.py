"""Damaged and lying checkpoints of OpenAI's kind: each gets the answer that fixtures/bad/cases.json asks for."""

import pytest

from gpt2kit.errors import FormatError, TruncatedFile, WeightMismatch
from gpt2kit.formats import openai
from gpt2kit.tokenizer.vocabulary import read_vocabulary

DATA, INDEX = "model.ckpt.data-00000-of-00001", "model.ckpt.index"
ANSWERS = {  # folder: the error, and what it says
    "tf_truncated_data": (TruncatedFile, f"{DATA}: the file ends 137792 bytes before model/wte does"),
    "tf_flipped_byte_data": (FormatError, f"{DATA}: model/h1/mlp/c_proj/w: the checksum of the values is"),
    "tf_flipped_byte_index": (FormatError, f"{INDEX}: block crc mismatch"),
    "tf_garbage_index": (FormatError, rf"{INDEX}: not a TensorBundle index \(bad magic\)"),
    "tf_empty_index": (TruncatedFile, f"{INDEX}: too short for a TensorBundle index; expected 48 bytes or more"),
    "tf_missing_data": (FormatError, f"{DATA}: missing; model.ckpt.index says that it holds model/wte"),
    "tf_wrong_hparams_n_embd": (
        WeightMismatch,
        r"wte.weight is \(320, 48\), but the configuration asks for \(320, 96\)",
    ),
    "tf_wrong_hparams_n_head": (FormatError, "hparams.json: width 48 cannot be shared evenly by 7 heads"),
    "tf_wrong_hparams_n_layer": (WeightMismatch, r"tensor h\.3\.ln_1\.weight is missing"),
    "tf_missing_layer_extra": (WeightMismatch, "12 tensors that the configuration does not know, such as h.2."),
    "tf_missing_hparams": (FormatError, "hparams.json is missing, and the number of heads cannot be guessed"),
    "tf_hparams_not_json": (FormatError, "hparams.json: not JSON"),
    "tf_entry_huge_size": (FormatError, "takes 61440 bytes, but has 1152921504606846976"),
    "tf_entry_huge_shape": (
        FormatError,
        r"model/wte \(1073741824, 48\) float32 takes 206158430208 bytes, but has 61440",
    ),
    "tf_entry_negative_offset": (FormatError, "model/wte claims 61440 bytes at -8"),
    "tf_entry_bad_dtype": (FormatError, "model/wte is string; expected one of float64"),
    "tf_entry_shard_out_of_range": (FormatError, "model/wte lies in shard 5; the bundle has 1"),
    "gpt2ml_wrong_vocab_size": (FormatError, "a GPT2-ML model"),
}
pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory without models/."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bad(shared):
    return shared / "fixtures" / "bad"


def read_whole(path):
    for tensor in openai.read(path).tensors.values():
        tensor.read()


@pytest.mark.parametrize("name", ANSWERS)
def test_the_error_says_what_is_wrong_and_where(bad, name):
    error, message = ANSWERS[name]
    assert openai.sniff(bad / name)
    with pytest.raises(error, match=message) as raised:
        read_whole(bad / name)
    assert str(bad / name) in str(raised.value)


def test_a_pointer_out_of_the_folder_is_not_followed(bad):
    with pytest.warns(UserWarning, match="names 'passwd', which is not there; read instead: .*model.ckpt"):
        checkpoint = openai.read(bad / "tf_checkpoint_traversal")
    assert len(checkpoint.tensors) == 40


def test_without_encoder_json_the_weights_are_read_and_the_tokenizer_says_what_it_needs(bad):
    checkpoint = openai.read(bad / "tf_missing_encoder")
    assert len(checkpoint.tensors) == 40
    with pytest.raises(FormatError, match=r"no vocabulary; encoder\.json is missing beside vocab\.bpe"):
        read_vocabulary(checkpoint.tokenizer_files, checkpoint.origin)
