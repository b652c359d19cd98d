import subprocess
import sys

import numpy as np


def test_every_finding_is_a_line(gpt2):
    status, out, _ = gpt2("doctor")
    assert status == 0
    assert f"numpy        {np.__version__}\n" in out
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == [
        *("gpt2kit", "python", "numpy", "tiktoken", "torch", "matplotlib", "tokenizers", "h5py", "onnx", "pyarrow"),
        *("zstandard", "fastapi"),
        *("engine", "native", "processor", "memory", "disk"),
    ]


def test_looking_around_loads_no_torch(here):
    program = (
        "import sys; from gpt2kit.cli.main import main; main(['doctor'])\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert done.stderr == "False\n"
