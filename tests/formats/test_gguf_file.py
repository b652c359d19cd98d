"""GGUF's container, put together by hand from its specification: github.com/ggml-org/ggml, docs/gguf.md."""

import struct

import numpy as np
import pytest

from gpt2kit.errors import FormatError
from gpt2kit.formats.gguf_blocks import PLAIN
from gpt2kit.formats.gguf_file import STRING, TypedValue, open_file, write_file

U32, F32, Q4_K = 4, 0, 12  # a kind of settings, and two of tensors
VALUES = np.arange(6, dtype="<f4").reshape(2, 3)


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def by_hand(path, *, version=3, alignment=None, names=("a",), kind=F32, apart=64):
    """Tensors of VALUES, so many bytes apart."""
    place = alignment or 32
    settings = [] if alignment is None else [string("general.alignment") + struct.pack("<II", U32, alignment)]
    infos = [string(name) + struct.pack("<IQQIQ", 2, 3, 2, kind, number * apart) for number, name in enumerate(names)]
    header = b"".join(
        [b"GGUF", struct.pack("<IQQ", version, len(infos), len(settings)), *settings, *infos],
    )
    values = VALUES.tobytes().ljust(apart, b"\0") * len(names)
    path.write_bytes(header.ljust(-(-len(header) // place) * place, b"\0") + values)
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [None, 8, 64])
def test_tensors_lie_where_the_specification_says(tmp_path, version, alignment):
    settings, tensors = open_file(by_hand(tmp_path / "a", version=version, alignment=alignment, names=("a", "b")))
    assert settings == ({} if alignment is None else {"general.alignment": alignment})
    assert set(tensors) == {"a", "b"}
    for tensor in tensors.values():
        np.testing.assert_array_equal(tensor.kind.values(tensor.rows(), tensor.shape), VALUES)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": 3 << 24}, "a GGUF file big-endian, which is not read; convert the model anew"),
        ({"version": 4}, "a GGUF file of version 4; expected 2 or 3; convert the model anew"),
        ({"names": ("a", "b"), "apart": 16, "alignment": 8}, r"b begins at \d+; expected a multiple of 8 from \d+ on"),
        ({"names": ("a", "b"), "apart": 40}, r"b begins at \d+; expected a multiple of 32 from"),
        ({"names": ("a", "b", "a")}, "a second tensor a"),
        ({"kind": Q4_K}, "a is of the type 12, which is not read; read are F32, .*; make one of these: llama-quantize"),
        ({"alignment": 4}, "general.alignment is 4; expected a multiple of 8"),
    ],
)
def test_what_is_not_read_is_told(tmp_path, changes, told):
    with pytest.raises(FormatError, match=told):
        open_file(by_hand(tmp_path / "a", **changes))


def test_writing_reports_up_to_the_last_byte(tmp_path):
    reports, tensor = [], (PLAIN["float32"], VALUES.shape, lambda: VALUES)
    words = TypedValue(STRING, ["a" * 100])
    write_file({"words": words}, {"a": tensor, "b": tensor}, tmp_path / "a", reports.append)
    assert reports[-1].done == reports[-1].total == (tmp_path / "a").stat().st_size
