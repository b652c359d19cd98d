"""A damaged meta.pkl, nanoGPT's vocabulary of characters; ckpt.pt is a torch file like others."""

import shutil
import warnings

from gpt2kit.formats import nanogpt
from gpt2kit.tokenizer.open import open_tokenizer


def test_a_damaged_vocabulary_of_characters(shared, tmp_path, survives):
    home = shared / "fixtures" / "nanogpt"
    shutil.copy(home / "ckpt.pt", tmp_path)

    def open_and_read(content):
        (tmp_path / "meta.pkl").write_bytes(content)
        with warnings.catch_warnings(action="ignore"):  # that it cannot be read
            files = nanogpt.read(tmp_path).tokenizer_files
        tokenizer = open_tokenizer(files, "here")
        assert tokenizer.decode(tokenizer.ids)

    outcomes = survives((home / "meta.pkl").read_bytes(), open_and_read, seed=0)
    assert {"accepted", "FormatError"} <= set(outcomes)
