import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpt2kit.train.precision import autocast, fastest_precision

CPU = torch.device("cpu")
CPU_FLAGS = Path("/proc/cpuinfo")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_matrices_are_multiplied_in_the_precision(precision, dtype):
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_afterwards_all_is_as_before(precision):
    with autocast(CPU, precision):
        pass
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


FLAGS = CPU_FLAGS.read_text("utf-8") if CPU_FLAGS.exists() else ""


@pytest.mark.slow
@pytest.mark.skipif(" amx_bf16 " not in FLAGS, reason="this CPU has no matrix unit for bf16")
def test_a_cpu_takes_bf16_where_it_has_a_unit_for_it():
    precision, reason = fastest_precision(CPU)
    assert precision == "bf16"
    assert "times as fast in bf16" in reason


@pytest.mark.slow
@pytest.mark.skipif("avx512f" not in FLAGS, reason="oneDNN can be told to do without AVX-512 only where it is")
def test_a_cpu_without_bf16_takes_fp32():
    """oneDNN, told to do without the instructions, computes bf16 more slowly than fp32."""
    program = "import torch; from gpt2kit.train.precision import *; print(fastest_precision(torch.device('cpu'))[0])"
    without = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    found = subprocess.run([sys.executable, "-c", program], env=without, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "fp32"


def test_a_device_that_nothing_is_known_of_takes_fp32():
    assert fastest_precision(torch.device("mps"))[0] == "fp32"


@pytest.mark.gpu
def test_a_gpu_takes_16_bits():
    assert fastest_precision(torch.device("cuda"))[0] in ("bf16", "fp16")
