import subprocess
import sys

import pytest

from gpt2kit.atomic import replace_bytes, replacing


def test_the_new_content_takes_the_old_place(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    replace_bytes(file, b"new")
    assert file.read_bytes() == b"new"


def test_nothing_is_left_beside_the_file(tmp_path):
    replace_bytes(tmp_path / "weights", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_readers_see_the_old_content_until_the_block_ends(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    with replacing(file) as half_written:
        half_written.write(b"new")
        half_written.flush()
        assert file.read_bytes() == b"old"


def write_half(file, fault):
    with replacing(file) as half_written:
        half_written.write(b"ne")
        raise fault


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_failure_inside_leaves_the_old_file_alone(tmp_path, fault):
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    with pytest.raises(fault):
        write_half(file, fault)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"weights": b"old"}


def test_a_failure_inside_leaves_no_file_where_none_was(tmp_path):
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "weights", RuntimeError)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_inside_leaves_the_old_content(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    program = """if True:
        import os, sys
        from pathlib import Path
        from gpt2kit.atomic import replacing
        with replacing(Path(sys.argv[1])) as half_written:
            half_written.write(b"ne")
            half_written.flush()
            os._exit(9)
    """
    assert subprocess.run([sys.executable, "-c", program, file], check=False).returncode == 9
    assert file.read_bytes() == b"old"
