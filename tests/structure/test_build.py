"""What an install builds: the native engine where there is a compiler, and everything else where there is none."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # builds a wheel


def test_without_a_compiler_all_but_the_native_engine_is_installed(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    settings = ["-C", f"build-dir={tmp_path / 'build'}", "--wheel-dir", str(tmp_path)]
    environment = {**os.environ, "CC": "no-such-compiler", "CXX": "no-such-compiler"}
    done = subprocess.run(
        [*command, *settings, str(REPOSITORY)], env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("gpt2kit-*.whl")
    assert wheel.name.endswith("py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"gpt2kit/generate/native_engine.py", "gpt2kit/serve/page/index.html"} <= names
    assert not any("_native" in name and name.endswith((".so", ".pyd")) for name in names)
